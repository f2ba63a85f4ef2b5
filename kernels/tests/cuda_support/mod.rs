//! What tests on a device share: the device, or the reason for a skip, and files that they read.
#![allow(dead_code)] // Each test file uses its part.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernels::cuda::compile::Compiler;
use kernels::cuda::driver::Device;

/// Tests share one device and one context: a stream that one of them holds would stop an allocation of another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to use the device, until it is dropped.
pub fn gpu() -> Option<MutexGuard<'static, ()>> {
    let found = Device::count().and_then(|n| Compiler::with_cache(None).map(|_| n));
    match found {
        Ok(_) => Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(e) if std::env::var_os("EDGELLM_REQUIRE_GPU").is_some() => panic!("a GPU is required: {e}"),
        Err(e) => {
            println!("skipped: no CUDA driver, device or compiler ({})", e.to_string().replace('\n', "; "));
            None
        }
    }
}

/// The first device, with the right to use it.
pub struct Held {
    device: Arc<Device>,
    _one: MutexGuard<'static, ()>,
}

impl Deref for Held {
    type Target = Arc<Device>;

    fn deref(&self) -> &Arc<Device> {
        &self.device
    }
}

/// The first device.
pub fn device() -> Option<Held> {
    gpu().map(|one| Held { device: Device::open(0).expect("a device that was counted opens"), _one: one })
}

/// A file or folder of this crate. A program of tests may run elsewhere than where it was built: in the checkout that
/// `EDGELLM_SOURCE` names, else in that of the current folder, else where it was built.
pub fn source(path: &str) -> PathBuf {
    let places = match std::env::var_os("EDGELLM_SOURCE").filter(|v| !v.is_empty()) {
        Some(checkout) => vec![PathBuf::from(checkout).join("kernels")],
        None => vec![PathBuf::from("kernels"), PathBuf::from("."), PathBuf::from(env!("CARGO_MANIFEST_DIR"))],
    };
    let found = places.iter().map(|folder| folder.join(path)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("no {path} in {places:?}: run in a checkout, or name one by EDGELLM_SOURCE"))
}
