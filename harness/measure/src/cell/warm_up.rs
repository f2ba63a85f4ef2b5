//! Warm-up to a plateau, bounded by time and not by count (§4.3).

use harness_spec::record::WarmUp;
use harness_spec::units::Nanos;
use harness_spec::{Cell, CellFailure, CellSample, Phase};

use super::settings::Settings;
use crate::cost::Timed;
use crate::describe::median;

/// Most samples of one call: a call is never longer than a group by much, so that Ctrl-C is heard.
const MOST_A_CALL: u64 = 4096;

/// Warms a cell: groups of at least 20 ms until three medians in a row are level, or the limit.
///
/// # Errors
/// What the target says of a launch that failed.
pub fn warm_up(bench: &mut Timed, cell: &Cell, settings: &Settings) -> Result<(WarmUp, Nanos), CellFailure> {
    to_plateau(bench, cell, settings, settings.warm_up_limit)
}

/// Runs a cell until the host's clock is level, before the first cell is warmed; at most 60 s.
///
/// # Errors
/// What the target says of a launch that failed.
pub fn burn_in(bench: &mut Timed, cell: &Cell, settings: &Settings) -> Result<(WarmUp, Nanos), CellFailure> {
    to_plateau(bench, cell, settings, settings.burn_in_limit)
}

fn to_plateau(
    bench: &mut Timed,
    cell: &Cell,
    settings: &Settings,
    limit: Nanos,
) -> Result<(WarmUp, Nanos), CellFailure> {
    bench.announce(Phase::WarmUp);
    let mut spent = Nanos(0);
    let mut device = 0.0;
    let mut medians: Vec<f64> = Vec::new();
    // One sample tells how many make a group.
    let mut count = 1;
    loop {
        let mut group: Vec<CellSample> = Vec::new();
        let mut length = 0.0;
        while length < settings.group.0 as f64 {
            let (samples, took) = bench.sample(cell, count);
            spent = spent + took;
            let samples = samples?;
            let interval: f64 = samples.iter().map(interval_ns).sum();
            // A device that gives no time would keep us here for ever.
            if samples.is_empty() || !interval.is_finite() || interval <= 0.0 {
                return Ok((WarmUp { group_medians_ns: medians, device: Nanos(device as u64), level: false }, spent));
            }
            length += interval;
            let each = interval / samples.len() as f64;
            count = (((settings.group.0 as f64 - length) / each).ceil().max(1.0) as u64).min(MOST_A_CALL) as u32;
            group.extend(samples);
        }
        device += length;
        let times: Vec<f64> = group.iter().map(|s| s.ns).collect();
        medians.extend(median(&times));
        let level = is_level(&medians, settings.level);
        if level || device >= limit.0 as f64 {
            return Ok((WarmUp { group_medians_ns: medians, device: Nanos(device as u64), level }, spent));
        }
        count = (count.max(times.len() as u32)).min(MOST_A_CALL as u32);
    }
}

/// The length of the timed interval.
pub(super) fn interval_ns(sample: &CellSample) -> f64 {
    sample.ns * f64::from(sample.launches)
}

fn is_level(medians: &[f64], within: f64) -> bool {
    let Some(last) = medians.last_chunk::<3>() else { return false };
    let (lo, hi) = last.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
    hi <= lo * (1.0 + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_medians_within_three_percent_are_level_and_a_ramp_is_not() {
        assert!(is_level(&[200.0, 100.0, 102.0, 101.0], 0.03));
        assert!(!is_level(&[104.0, 100.0, 102.0], 0.03));
        assert!(!is_level(&[100.0, 100.0], 0.03));
    }
}
