//! The state of the machine between two blocks; read outside every timed interval.

use harness_spec::record::{BlockTelemetry, Measure, SideRole};
use harness_spec::units::Nanos;

use super::cpu;
use super::gpu::Gpu;

/// Reads clock, load and temperature of the processor, and the same of the run's GPU where it has one.
pub fn read(block: u64, side: SideRole, at_ns: Nanos, gpu: Option<&Gpu>) -> BlockTelemetry {
    let measured = |value: Option<f64>, why: &str| value.map_or_else(|| Measure::missing(why), Measure::measured);
    BlockTelemetry {
        block,
        side,
        at_ns,
        cpu_mhz: measured(cpu::mean_mhz(), "the kernel shows no core clock"),
        load1: measured(load1(), "the kernel shows no load average"),
        temperature_c: measured(temperature(), "no thermal zone is readable"),
        gpu: gpu.map(Gpu::read),
    }
}

/// Load average over one minute.
pub fn load1() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The hottest thermal zone, °C.
fn temperature() -> Option<f64> {
    std::fs::read_dir("/sys/class/thermal")
        .ok()?
        .filter_map(|zone| {
            let text = std::fs::read_to_string(zone.ok()?.path().join("temp")).ok()?;
            Some(text.trim().parse::<f64>().ok()? / 1000.0)
        })
        .reduce(f64::max)
}
