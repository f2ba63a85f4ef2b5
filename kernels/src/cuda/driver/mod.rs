//! The driver API, one thin safe layer: a device and its context, memory, modules, streams, graphs.
//!
//! Every call is checked, and an error says which call, which code and what was being done. An asynchronous fault shows
//! at the next call that waits: those say which kernel they waited for.

mod device;
mod graph;
mod launch;
mod memory;
mod module;
mod nvml;
mod stream;

pub use device::{Device, Facts};
pub use graph::Graph;
pub use launch::{LaunchShape, Value};
pub use memory::{Buffer, GUARD, Guarded, HostWords};
pub use module::{Function, Module};
pub use nvml::Board;
pub use stream::{Event, Stream};

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUresult};

use super::CudaError;

/// Turns the result of a driver call into an error that names it.
fn check(call: &'static str, result: CUresult, doing: impl FnOnce() -> String) -> Result<(), CudaError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut name = std::ptr::null();
    let mut text = std::ptr::null();
    // SAFETY: both pointers are valid for one pointer, and receive static strings or null.
    unsafe {
        // For a code that the driver does not know both stay null.
        let _ = sys::cuGetErrorName(result, &mut name);
        let _ = sys::cuGetErrorString(result, &mut text);
    }
    let read = |p: *const std::ffi::c_char| {
        // SAFETY: a pointer from the driver that is not null is a static C string.
        if p.is_null() { "unknown".to_owned() } else { unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned() }
    };
    Err(CudaError::Driver { call, code: result as u32, name: read(name), text: read(text), doing: doing() })
}
