//! Streams and events.

use std::sync::Arc;

use cudarc::driver::sys;

use super::{Device, check};
use crate::cuda::CudaError;

/// A stream that does not wait for the legacy default stream, which cannot be captured.
#[derive(Debug)]
pub struct Stream {
    pub(in crate::cuda) raw: sys::CUstream,
    pub(super) device: Arc<Device>,
}

// SAFETY: a stream is a handle that any thread may use while its context is current.
unsafe impl Send for Stream {}

impl Stream {
    /// A new stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(device: &Arc<Device>) -> Result<Stream, CudaError> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is valid for one handle, and the context is current.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut raw, flags) }, || "making a stream".to_owned())?;
        Ok(Stream { raw, device: device.clone() })
    }

    /// The device of the stream.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Waits for everything on the stream. A fault of an earlier launch shows here: `doing` names it.
    ///
    /// # Errors
    /// The driver's error.
    pub fn wait(&self, doing: impl FnOnce() -> String) -> Result<(), CudaError> {
        // SAFETY: the stream is alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) }, doing)
    }

    /// Whether everything on the stream is done.
    ///
    /// # Errors
    /// A fault of an earlier launch; `doing` names it.
    pub fn is_done(&self, doing: impl FnOnce() -> String) -> Result<bool, CudaError> {
        // SAFETY: the stream is alive.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => check("cuStreamQuery", result, doing).map(|()| true),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `new` and is used no more.
        unsafe {
            let _ = sys::cuStreamDestroy_v2(self.raw);
        }
    }
}

/// A point in a stream, with its time.
#[derive(Debug)]
pub struct Event {
    raw: sys::CUevent,
    _device: Arc<Device>,
}

// SAFETY: an event is a handle that any thread may use while its context is current.
unsafe impl Send for Event {}

impl Event {
    /// A new event with timing.
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(device: &Arc<Device>) -> Result<Event, CudaError> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle; 0 is the default, with timing.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, 0) }, || "making an event".to_owned())?;
        Ok(Event { raw, _device: device.clone() })
    }

    /// Records the event on a stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both handles are alive.
        let result = unsafe { sys::cuEventRecord(self.raw, stream.raw) };
        check("cuEventRecord", result, || "marking a time".to_owned())
    }

    /// Records the event as a node of the graph that is being captured from a stream: it gets a time whenever the graph
    /// is launched.
    ///
    /// # Errors
    /// The driver's error.
    pub fn record_in_graph(&self, stream: &Stream) -> Result<(), CudaError> {
        // Without the flag the record would only order the capture and be no node.
        let external = sys::CUevent_record_flags_enum::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: both handles are alive.
        let result = unsafe { sys::cuEventRecordWithFlags(self.raw, stream.raw, external) };
        check("cuEventRecordWithFlags", result, || "marking a time in a graph".to_owned())
    }

    /// Nanoseconds from `self` to `end`, both of which have happened.
    ///
    /// # Errors
    /// The driver's error.
    pub fn until(&self, end: &Event) -> Result<f64, CudaError> {
        let mut millis = 0f32;
        let (name, elapsed) = elapsed_time()?;
        // SAFETY: both events are alive and the pointer is valid for one float.
        let result = unsafe { elapsed(&mut millis, self.raw, end.raw) };
        check(name, result, || "reading a time".to_owned())?;
        Ok(f64::from(millis) * 1e6)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `new` and is used no more.
        unsafe {
            let _ = sys::cuEventDestroy_v2(self.raw);
        }
    }
}

type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;

/// The function under its newest name. The binding crate knows one name only, and drivers before CUDA 12.8 the other.
fn elapsed_time() -> Result<(&'static str, Elapsed), CudaError> {
    static FOUND: std::sync::OnceLock<Option<(&'static str, Elapsed)>> = std::sync::OnceLock::new();
    let found = FOUND.get_or_init(|| {
        ["cuEventElapsedTime_v2", "cuEventElapsedTime"].into_iter().find_map(|name| {
            // SAFETY: both names have this signature in cuda.h.
            unsafe { crate::cuda::library::driver_symbol::<Elapsed>(name) }.map(|f| (name, f))
        })
    });
    found.ok_or_else(|| CudaError::NoDriver { reason: "it has no cuEventElapsedTime: too old".to_owned() })
}
