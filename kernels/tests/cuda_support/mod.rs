//! What tests on a device share: the device, or the reason for a skip.
#![allow(dead_code)] // Each test file uses its part.

use std::sync::Arc;

use kernels::cuda::compile::Compiler;
use kernels::cuda::driver::Device;

/// Whether there is a device and a compiler; prints why not, and fails where EDGELLM_REQUIRE_GPU is set.
pub fn gpu() -> Option<u32> {
    let found = Device::count().and_then(|n| Compiler::with_cache(None).map(|_| n));
    match found {
        Ok(n) => Some(n),
        Err(e) if std::env::var_os("EDGELLM_REQUIRE_GPU").is_some() => panic!("a GPU is required: {e}"),
        Err(e) => {
            println!("skipped: no CUDA driver, device or compiler ({})", e.to_string().replace('\n', "; "));
            None
        }
    }
}

/// The first device.
pub fn device() -> Option<Arc<Device>> {
    gpu().map(|_| Device::open(0).expect("a device that was counted opens"))
}
