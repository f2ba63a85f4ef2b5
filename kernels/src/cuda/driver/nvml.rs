//! The board, through the driver's management library: limits that key results, clocks and temperature beside them.
//!
//! Nothing here is needed to measure, so a library that is missing or a query that is refused is `None`.

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;

use super::Device;
use crate::cuda::CudaError;

/// A board by its management library.
#[derive(Debug)]
pub struct Board {
    nvml: Nvml,
    uuid: String,
    ordinal: u32,
}

impl Board {
    /// The board of a device by its number, without a context on the device: for whoever only watches.
    ///
    /// # Errors
    /// As [`Device::facts_of`]; `None` where the management library is not there.
    pub fn of(ordinal: u32) -> Result<Option<Board>, CudaError> {
        let facts = Device::facts_of(ordinal)?;
        Ok(Board::open(&facts.uuid, ordinal))
    }

    /// The board of a device.
    pub(super) fn open(uuid: &str, ordinal: u32) -> Option<Board> {
        let nvml = Nvml::init().ok().or_else(|| {
            let places = crate::cuda::library::Surroundings::of_this_process().driver();
            places.iter().find_map(|p| {
                let path = p.folder.join("libnvidia-ml.so.1");
                path.exists().then(|| Nvml::builder().lib_path(path.as_os_str()).init().ok()).flatten()
            })
        })?;
        let board = Board { nvml, uuid: uuid.to_owned(), ordinal };
        board.device().is_some().then_some(board)
    }

    fn device(&self) -> Option<nvml_wrapper::Device<'_>> {
        // The order of the driver and that of the library differ where CUDA_VISIBLE_DEVICES or the bus order says so, and
        // a slice of a board has a UUID of its own: the number is the second choice, and only where it cannot be wrong.
        self.nvml.device_by_uuid(self.uuid.as_str()).ok().or_else(|| {
            let only = self.nvml.device_count().ok() == Some(1) && self.ordinal == 0;
            only.then(|| self.nvml.device_by_index(0).ok()).flatten()
        })
    }

    /// The driver's version, such as `580.65.06`.
    pub fn driver(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// `on` or `off`.
    pub fn ecc(&self) -> Option<String> {
        let state = self.device()?.is_ecc_enabled().ok()?;
        Some(if state.currently_enabled { "on" } else { "off" }.to_owned())
    }

    /// `on` or `off`; a board that cannot be split says `off`.
    pub fn mig(&self) -> Option<String> {
        match self.device()?.mig_mode() {
            Ok(mode) => Some(if mode.current == 0 { "off" } else { "on" }.to_owned()),
            Err(nvml_wrapper::error::NvmlError::NotSupported) => Some("off".to_owned()),
            Err(_) => None,
        }
    }

    /// The power limit in force, in whole watts.
    pub fn power_limit(&self) -> Option<String> {
        Some((self.device()?.enforced_power_limit().ok()? / 1000).to_string())
    }

    /// The memory clock in MHz, now.
    pub fn memory_clock_mhz(&self) -> Option<f64> {
        self.device()?.clock_info(Clock::Memory).ok().map(f64::from)
    }

    /// The SM clock in MHz, now: for display; samples use timestamps on the device.
    pub fn sm_clock_mhz(&self) -> Option<f64> {
        self.device()?.clock_info(Clock::SM).ok().map(f64::from)
    }

    /// What the board draws now, in watts.
    pub fn power_w(&self) -> Option<f64> {
        self.device()?.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3)
    }

    /// The energy that the board has used since the driver was loaded, in joules. Boards before Volta do not count it.
    pub fn energy_j(&self) -> Option<f64> {
        self.device()?.total_energy_consumption().ok().map(|millijoules| millijoules as f64 / 1e3)
    }

    /// Bytes of memory in use on the board, by every process.
    pub fn memory_used(&self) -> Option<u64> {
        self.device()?.memory_info().ok().map(|memory| memory.used)
    }

    /// Bytes of memory that these processes hold on the board. `None` where the library does not list any of them, as in a
    /// container that numbers processes otherwise, or does not say how much.
    pub fn memory_of(&self, pids: &[u32]) -> Option<u64> {
        let all = self.device()?.running_compute_processes().ok()?;
        let held = all.into_iter().filter(|process| pids.contains(&process.pid)).map(|process| {
            match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            }
        });
        held.reduce(|a, b| Some(a? + b?)).flatten()
    }

    /// Why the clocks are below what the board could do, where something but an idle device holds them down.
    pub fn throttled(&self) -> Option<String> {
        let reasons = self.device()?.current_throttle_reasons().ok()? - ThrottleReasons::GPU_IDLE;
        let names: Vec<String> = reasons.iter_names().map(|(name, _)| name.to_lowercase().replace('_', " ")).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Degrees Celsius.
    pub fn temperature(&self) -> Option<u32> {
        self.device()?.temperature(TemperatureSensor::Gpu).ok()
    }
}
