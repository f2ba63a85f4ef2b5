//! The GPU of a run as its board shows it: clocks, temperature, power, energy. Nothing is allocated on it.

use harness_spec::record::{GpuTelemetry, Measure};
use kernels::cuda::CudaError;
use kernels::cuda::driver::{Board, Device, Facts};

/// A GPU that is watched.
#[derive(Debug)]
pub struct Gpu {
    ordinal: u32,
    facts: Facts,
    board: Option<Board>,
}

impl Gpu {
    /// The GPU of this number.
    ///
    /// # Errors
    /// There is no driver or no such device.
    pub fn open(ordinal: u32) -> Result<Gpu, CudaError> {
        Ok(Gpu { ordinal, facts: Device::facts_of(ordinal)?, board: Board::of(ordinal)? })
    }

    /// The device as the command line writes it.
    pub fn device(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// Such as `NVIDIA H200`.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The version of the driver.
    pub fn driver(&self) -> Option<String> {
        self.board.as_ref()?.driver()
    }

    /// The energy that the board has used since the driver was loaded, J.
    pub fn energy_j(&self) -> Option<f64> {
        self.board.as_ref()?.energy_j()
    }

    /// Bytes of its memory that these processes hold, where the driver tells.
    pub fn memory_of(&self, pids: &[u32]) -> Option<u64> {
        self.board.as_ref()?.memory_of(pids)
    }

    /// The state of the board now. The energy of what follows is not known yet.
    pub fn read(&self) -> GpuTelemetry {
        let board = self.board.as_ref();
        let read = |value: &dyn Fn(&Board) -> Option<f64>| match board {
            None => Measure::missing("the management library of the driver (NVML) is not there"),
            Some(board) => value(board).map_or_else(|| Measure::missing("the board does not tell"), Measure::measured),
        };
        GpuTelemetry {
            sm_mhz: read(&Board::sm_clock_mhz),
            memory_mhz: read(&Board::memory_clock_mhz),
            temperature_c: read(&|b| b.temperature().map(f64::from)),
            power_w: read(&Board::power_w),
            memory_used_bytes: read(&|b| b.memory_used().map(|bytes| bytes as f64)),
            energy_j: Measure::missing("the block did not end"),
            throttled: board.and_then(Board::throttled),
        }
    }

    /// The energy between two readings of [`Gpu::energy_j`].
    pub fn used(before: Option<f64>, after: Option<f64>) -> Measure {
        match (before, after) {
            (Some(before), Some(after)) if after >= before => Measure::measured(after - before),
            _ => Measure::missing("the board counts no energy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_the_difference_of_two_readings_and_a_counter_that_went_back_is_none() {
        assert_eq!(Gpu::used(Some(10.0), Some(12.5)), Measure::measured(2.5));
        for (before, after) in [(None, Some(1.0)), (Some(1.0), None), (Some(2.0), Some(1.0))] {
            assert_eq!(Gpu::used(before, after).value, None);
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_names_the_fix() {
        let said = Gpu::open(4096).unwrap_err().to_string();
        assert!(said.contains("no CUDA d") && said.contains("hint"), "{said}");
    }
}
