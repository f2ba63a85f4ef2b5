//! The ceilings of the device, measured in a second: read rate, an empty launch, the clock under load.

use harness_spec::target::Canary;
use harness_spec::{Bytes, CellFailure};

use super::support::{Interval, Support};
use crate::cuda::driver::{Buffer, Graph, Stream};

/// Bytes read in one timed pass series at least: milliseconds on the fastest device.
const READ_BYTES: u64 = 16 << 30;

/// Launches in the graph of empty ones.
const EMPTY_LAUNCHES: usize = 1000;

/// Measures the ceilings. A working set that fits the cache is read from there, as a hot kernel would.
///
/// # Errors
/// Where the device fails.
pub fn canary(stream: &Stream, support: &Support, working_set: Bytes) -> Result<Canary, CellFailure> {
    let bytes = (working_set.0.max(1 << 20)).next_multiple_of(4096);
    let data = Buffer::new(stream.device(), bytes as usize, "the canary's working set")?;
    data.fill(stream, 0, data.len(), 1)?;
    let passes = u32::try_from(READ_BYTES.div_ceil(bytes)).unwrap_or(u32::MAX);
    let mut best = 0f64;
    let mut clock = None;
    for blocks in [1, 2, 4].repeat(4) {
        let i = held(|| read(stream, support, &data, passes, blocks))?;
        let rate = (bytes * u64::from(passes)) as f64 / i.ns;
        if rate > best {
            best = rate;
        }
        // The last one runs on a device that has worked for all before it.
        clock = i.sm_clock_mhz.or(clock);
    }
    let graph = Graph::capture(stream, |s| (0..EMPTY_LAUNCHES).try_for_each(|_| support.nothing(s, false)))?;
    graph.launch(stream)?;
    let mut empty = f64::INFINITY;
    for _ in 0..5 {
        let i = support.bracket_graph(stream, &graph, || "timing empty launches".to_owned())?;
        empty = empty.min(i.ns / EMPTY_LAUNCHES as f64);
    }
    Ok(Canary {
        working_set: Bytes(bytes),
        read_gb_per_s: best,
        empty_launch_ns: Some(empty),
        sm_clock_mhz: clock,
        gflop_per_s: None,
    })
}

/// The read rate in bytes a nanosecond, roughly: a few hundred microseconds at the start, to plan samples by.
///
/// # Errors
/// Where the device fails.
pub fn rough_rate(stream: &Stream, support: &Support) -> Result<f64, CellFailure> {
    let data = Buffer::new(stream.device(), 256 << 20, "a first look at the read rate")?;
    data.fill(stream, 0, data.len(), 1)?;
    read(stream, support, &data, 1, 4)?;
    let i = read(stream, support, &data, 4, 4)?;
    Ok((data.len() * 4) as f64 / i.ns.max(1.0))
}

fn read(
    stream: &Stream,
    support: &Support,
    data: &Buffer,
    passes: u32,
    blocks: u32,
) -> Result<Interval, crate::cuda::CudaError> {
    let bytes = data.len() as u64;
    support.bracket(stream, || support.read(stream, data.address(), bytes, passes, blocks), || "reading".to_owned())
}

/// Repeats a measurement whose stream was not held, which only happens where the host was stopped.
fn held(mut measure: impl FnMut() -> Result<Interval, crate::cuda::CudaError>) -> Result<Interval, CellFailure> {
    let mut last = measure()?;
    for _ in 0..2 {
        if last.held {
            break;
        }
        last = measure()?;
    }
    Ok(last)
}
