//! The SM clock over the run: whether the device ran at one speed while the variants were compared.

use harness_spec::record::{KernelRun, SampleDrop, Trial};
use plotters::prelude::Color;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::{ENGINE, INK, PEER};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;

const NAME: &str = "clock";
const TITLE: &str = "SM clock of every sample over the run";
/// Samples of one trial that are drawn: the clock moves slower than they come.
const MOST_OF_A_TRIAL: usize = 6;

/// Draws a dot a sample and a cross where it was dropped. The first of a trial is dropped whatever its clock was, so a
/// cross there would look like a fault of the device: it is not drawn.
pub(super) fn draw(run: &KernelRun, trials: &[Trial]) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let mut dots = Vec::new();
    for trial in trials {
        let stride = trial.samples.len().div_ceil(MOST_OF_A_TRIAL).max(1);
        let counted = trial.samples.iter().filter(|s| s.dropped != Some(SampleDrop::First));
        for sample in counted.step_by(stride) {
            if let Some(mhz) = sample.sm_clock_mhz.filter(|v| v.is_finite()) {
                dots.push((trial.at_ns.secs(), mhz, sample.dropped.is_some()));
            }
        }
    }
    if trials.is_empty() {
        return Ok(omitted("the trials are not here to be read"));
    }
    if dots.is_empty() {
        return Ok(omitted("the device gives no clock of its own, or nothing was timed"));
    }
    let reference = run.canaries.iter().filter_map(|c| c.canary.as_ref()?.sm_clock_mhz).next();
    let clocks = || dots.iter().map(|d| d.1).chain(reference);
    let (slowest, fastest) = (clocks().fold(f64::INFINITY, f64::min), clocks().fold(0.0, f64::max));
    let end = dots.iter().map(|d| d.0).fold(0.0, f64::max);
    let mut legend = vec![(Some(ENGINE), "kept".to_owned())];
    if dots.iter().any(|d| d.2) {
        legend.push((Some(PEER), "dropped".to_owned()));
    }
    if let Some(reference) = reference {
        legend.push((Some(INK), format!("canary before the run, {reference:.0} MHz")));
    }
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend,
        height: 300,
        left: 76,
        right: 24,
        x: (Axis::linear(0.0, end.max(1.0), 8), "time since the start of the run, s"),
        y: (Axis::around(slowest, fastest, 6), "mean SM clock, MHz"),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        if let Some(reference) = reference {
            let (from, to) = plot.across();
            easel::line(sheet, (from, plot.y(reference)), (to, plot.y(reference)), &INK, 1)?;
        }
        for &(at, mhz, dropped) in &dots {
            let point = (plot.x(at), plot.y(mhz));
            if dropped {
                easel::cross(sheet, point, &PEER)?;
            } else {
                easel::dot(sheet, point, 2, &ENGINE.mix(0.5))?;
            }
        }
        Ok(())
    })?;
    let caption = "Mean clock of each timed interval, from timestamps on the device itself, placed at the end of its \
                   trial. The first sample of a trial is never counted and not drawn. Samples under 75 % of the reference \
                   clock are dropped."
        .to_owned();
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}
