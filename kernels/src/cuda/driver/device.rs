//! A device with its context, and what it says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use harness_spec::target::DeviceKey;

use super::super::library::{driver_version, load_driver};
use super::{Board, check};
use crate::cuda::CudaError;
use crate::cuda::compile::Arch;

/// The CUDA version that a driver must run at least. Launches with attributes came with 11.8, and there is no NVRTC before
/// 12.0 for the newest device among those that every kernel is compiled for.
const LEAST_DRIVER: (u32, u32) = (12, 0);

/// What a device says of itself. Code asks here and never assumes.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// `GPU-` and hex digits; recorded, not part of any key.
    pub uuid: String,
    /// Compute capability times ten.
    pub cc: u32,
    /// Multiprocessors.
    pub sms: u32,
    /// Bytes of the last-level cache.
    pub l2: u64,
    /// Bytes of shared memory that a block may ask for.
    pub smem: u32,
    /// Threads that a multiprocessor holds.
    pub threads_per_sm: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The newest CUDA version that the driver runs, as (13, 0).
    pub driver_cuda: (u32, u32),
}

/// A device and its primary context.
#[derive(Debug)]
pub struct Device {
    handle: sys::CUdevice,
    context: sys::CUcontext,
    facts: Facts,
    board: Option<Board>,
    transfer_ns: AtomicU64,
}

// SAFETY: device and context are handles that any thread may use once it has made the context current, which every
// operation does first (`bind`). The board is queried through a library that locks for itself.
unsafe impl Send for Device {}
// SAFETY: as above; nothing here is changed but an atomic counter.
unsafe impl Sync for Device {}

impl Device {
    /// The number of devices that the driver shows.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::OldDriver`], [`CudaError::NoDevice`].
    pub fn count() -> Result<u32, CudaError> {
        load_driver()?;
        let found = driver_version()?;
        if found < LEAST_DRIVER {
            return Err(CudaError::OldDriver { found, least: LEAST_DRIVER });
        }
        // SAFETY: the library is loaded; 0 is the only legal flag.
        let result = unsafe { sys::cuInit(0) };
        check("cuInit", result, || "starting the driver".to_owned())
            .map_err(|e| CudaError::NoDevice { reason: e.to_string() })?;
        let mut count = 0;
        // SAFETY: the pointer is valid for one int.
        let result = unsafe { sys::cuDeviceGetCount(&mut count) };
        check("cuDeviceGetCount", result, || "counting devices".to_owned())?;
        if count <= 0 {
            return Err(CudaError::NoDevice { reason: "the driver shows none".to_owned() });
        }
        Ok(count as u32)
    }

    /// What a device says of itself, asked without a context: nothing is allocated on it.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], or the driver's error.
    pub fn facts_of(ordinal: u32) -> Result<Facts, CudaError> {
        facts(handle(ordinal)?)
    }

    /// Opens a device by its number, with its primary context.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], or the driver's error.
    pub fn open(ordinal: u32) -> Result<Arc<Device>, CudaError> {
        let handle = handle(ordinal)?;
        let doing = || format!("opening device {ordinal}");
        let facts = facts(handle)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the handle is that of a device; the context is released in `drop`.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, handle) };
        check("cuDevicePrimaryCtxRetain", result, doing)?;
        let board = Board::open(&facts.uuid, ordinal);
        let device = Device { handle, context, facts, board, transfer_ns: AtomicU64::new(0) };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// Makes the context current on this thread. Cheap; whoever calls from a new thread does it first.
    ///
    /// # Errors
    /// The driver's error.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) }, || "choosing the device".to_owned())
    }

    /// What the device says of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the driver's management library says of the board, where it is there.
    pub fn board(&self) -> Option<&Board> {
        self.board.as_ref()
    }

    /// Machine code that this device runs.
    pub fn arch(&self) -> Arch {
        Arch::sm(self.facts.cc)
    }

    /// Bytes of memory that are free now.
    ///
    /// # Errors
    /// The driver's error.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are valid for one size.
        let result = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        check("cuMemGetInfo", result, || "asking for free memory".to_owned())?;
        Ok(free as u64)
    }

    /// What keys results to this device (MEASURING.md §10). What could not be read says so: unknown is a value too.
    pub fn key(&self, nvrtc: &str) -> DeviceKey {
        let unknown = || "unknown".to_owned();
        let board = self.board.as_ref();
        let (major, minor) = self.facts.driver_cuda;
        let conditions = [
            ("driver", board.and_then(Board::driver).unwrap_or_else(|| format!("cuda {major}.{minor}"))),
            ("ecc", board.and_then(Board::ecc).unwrap_or_else(unknown)),
            ("mig", board.and_then(Board::mig).unwrap_or_else(unknown)),
            ("nvrtc", nvrtc.to_owned()),
            ("power_limit_w", board.and_then(Board::power_limit).unwrap_or_else(unknown)),
        ];
        DeviceKey {
            backend: "cuda".to_owned(),
            name: self.facts.name.clone(),
            arch: self.arch().to_string(),
            conditions: conditions.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }

    /// Time that transfers took since the device was opened.
    pub fn transfer_time(&self) -> Duration {
        Duration::from_nanos(self.transfer_ns.load(Ordering::Relaxed))
    }

    pub(super) fn add_transfer(&self, time: Duration) {
        self.transfer_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it was retained in `open`, and everything made in the context holds an `Arc` of this device. After a
        // fault the call fails, and nothing can be done about it.
        unsafe {
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.handle);
        }
    }
}

fn handle(ordinal: u32) -> Result<sys::CUdevice, CudaError> {
    let count = Device::count()?;
    if ordinal >= count {
        let reason = format!("there is no device {ordinal}: the driver shows {count}, numbered from 0");
        return Err(CudaError::NoDevice { reason });
    }
    let mut handle = 0;
    // SAFETY: the pointer is valid for one handle.
    let result = unsafe { sys::cuDeviceGet(&mut handle, ordinal as i32) };
    check("cuDeviceGet", result, || format!("opening device {ordinal}"))?;
    Ok(handle)
}

fn facts(handle: sys::CUdevice) -> Result<Facts, CudaError> {
    let attribute = |which: Attribute| {
        let mut value = 0;
        // SAFETY: the pointer is valid for one int and the handle is that of a device.
        let result = unsafe { sys::cuDeviceGetAttribute(&mut value, which, handle) };
        check("cuDeviceGetAttribute", result, || format!("asking for {which:?}"))?;
        Ok::<u32, CudaError>(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0 as std::ffi::c_char; 256];
    // SAFETY: the array has the length that is given; the driver ends the text with a zero byte.
    let result = unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, handle) };
    check("cuDeviceGetName", result, || "asking for the name".to_owned())?;
    let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: the pointer is valid for one UUID.
    let result = unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, handle) };
    check("cuDeviceGetUuid", result, || "asking for the UUID".to_owned())?;
    let mut memory = 0;
    // SAFETY: the pointer is valid for one size.
    let result = unsafe { sys::cuDeviceTotalMem_v2(&mut memory, handle) };
    check("cuDeviceTotalMem", result, || "asking for the size of the memory".to_owned())?;
    let cc = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? * 10
        + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Facts {
        name: String::from_utf8_lossy(&name).into_owned(),
        uuid: uuid_text(&uuid.bytes.map(|b| b as u8)),
        cc,
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        smem: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        threads_per_sm: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        memory: memory as u64,
        driver_cuda: driver_version()?,
    })
}

/// The text by which the management library knows a device.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_as_the_management_library_writes_it() {
        let bytes = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(uuid_text(&bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
