//! The GPU that some tests need, one at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::cuda::driver::Device;
use kernels::cuda::library::nvrtc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to use the first GPU, or `None` after saying that the test is skipped. With `EDGELLM_REQUIRE_GPU=1` its
/// absence is a failure.
pub fn hold() -> Option<MutexGuard<'static, ()>> {
    match Device::count().and_then(|_| nvrtc()) {
        Ok(_) => Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(e) if std::env::var_os("EDGELLM_REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("a GPU is required: {e}"),
        Err(e) => {
            println!("skipped: no CUDA driver, device or compiler ({})", e.to_string().replace('\n', "; "));
            None
        }
    }
}
