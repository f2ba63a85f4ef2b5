//! Roofline: the rate at which the winner, the plain variant and a pure read move the bytes of each workload.

use harness_spec::record::{KernelRun, WorkloadResult};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use crate::charts::axis::Axis;
use crate::charts::easel::{self, Frame};
use crate::charts::palette::{ENGINE, INK, MUTED, PEER};
use crate::charts::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::kernels::view;
use crate::view::format::number;

const NAME: &str = "roofline";
const TITLE: &str = "Bandwidth roofline: bytes of a launch against the rate they are moved at";

/// Bytes and GB/s of a workload's winner, plain variant and floor.
struct Point {
    name: String,
    bytes: f64,
    winner: Option<f64>,
    baseline: Option<f64>,
    floor: f64,
}

fn point(run: &KernelRun, result: &WorkloadResult) -> Option<Point> {
    let rate = |variant: &Option<harness_spec::VariantId>| {
        let variant = variant.as_ref()?;
        let cell = view::cells(run, result).find(|c| &c.cell.variant == variant)?;
        let (bytes, time) = (cell.bytes?.0 as f64, cell.time_ns.as_ref()?.median);
        (bytes > 0.0 && time > 0.0).then_some((bytes, bytes / time))
    };
    let winner = rate(&result.winner);
    let baseline = rate(&result.baseline);
    let floor = result.floor.as_ref().filter(|f| f.median_ns > 0.0 && f.bytes.0 > 0)?;
    let bytes = winner.or(baseline)?.0;
    Some(Point {
        name: result.workload.to_string(),
        bytes,
        winner: winner.map(|w| w.1),
        baseline: baseline.map(|b| b.1),
        floor: floor.bytes.0 as f64 / floor.median_ns,
    })
}

/// Draws a dot for each.
pub(super) fn draw(run: &KernelRun) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let points: Vec<Point> = run.results.iter().filter_map(|r| point(run, r)).collect();
    if points.is_empty() {
        return Ok(omitted("no workload has both a timed variant and a pure read of its bytes"));
    }
    let roof = run
        .canaries
        .iter()
        .filter_map(|c| c.canary.as_ref())
        .map(|c| c.read_gb_per_s)
        .filter(|v| v.is_finite() && *v > 0.0)
        .fold(None, |most: Option<f64>, v| Some(most.map_or(v, |m| m.max(v))));
    let rates: Vec<f64> =
        points.iter().flat_map(|p| [p.winner, p.baseline, Some(p.floor)]).flatten().chain(roof).collect();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)))
    };
    let (slow, fast) = span(&mut rates.iter().copied());
    let (small, large) = span(&mut points.iter().map(|p| p.bytes / 1e6));
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![
            (Some(ENGINE), "winner, numbered".to_owned()),
            (Some(PEER), "plain variant".to_owned()),
            (Some(MUTED), "pure read of the same bytes".to_owned()),
        ],
        height: 420,
        left: 76,
        right: 24,
        x: (Axis::log(small / 1.3, large * 1.3, 8), "bytes of one launch, MB (log)"),
        y: (Axis::log(slow / 1.3, fast * 1.3, 8), "GB/s (log)"),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        if let Some(roof) = roof {
            let (from, to) = plot.across();
            easel::line(sheet, (from, plot.y(roof)), (to, plot.y(roof)), &INK, 2)?;
            let text = format!("measured read ceiling {} GB/s", number(roof));
            easel::text(sheet, &text, (from + 8, plot.y(roof) - 10), 12, &MUTED, HPos::Left)?;
        }
        let mut labels = Labels::default();
        if let Some(roof) = roof {
            let ((from, to), y) = (plot.across(), plot.y(roof));
            labels.taken.push([from, y - 1, to, y + 1]);
        }
        // A bar wider than a dot is seen on both sides of the winner that reaches it.
        for p in &points {
            let (x, y) = (plot.x(p.bytes / 1e6), plot.y(p.floor));
            easel::rect(sheet, (x - 11, y - 1), (x + 11, y + 1), &MUTED.to_rgba())?;
            labels.taken.push([x - 11, y - 1, x + 11, y + 1]);
        }
        for p in &points {
            for (rate, colour) in [(p.baseline, PEER), (p.winner, ENGINE)] {
                if let Some(rate) = rate {
                    let at = (plot.x(p.bytes / 1e6), plot.y(rate));
                    easel::dot(sheet, at, 4, &colour.mix(0.8))?;
                    labels.taken.push(Labels::around(at, 3));
                }
            }
        }
        for (at, p) in points.iter().enumerate() {
            if let Some(rate) = p.winner {
                let place = labels.place((plot.x(p.bytes / 1e6), plot.y(rate)), plot.across());
                easel::text(sheet, &(at + 1).to_string(), place, 10, &INK, HPos::Center)?;
            }
        }
        Ok(())
    })?;
    let names: Vec<String> = points.iter().enumerate().map(|(at, p)| format!("{} {}", at + 1, p.name)).collect();
    let without = match run.results.len() - points.len() {
        0 => String::new(),
        n => format!(" {n} without a pure read or a time are left out."),
    };
    let caption = format!(
        "GEMV does so few operations for each byte that the roof is bandwidth alone. Small launches lie under it because \
         a launch has a fixed cost, which the pure read pays too: compare each winner with the grey bar above it. A dot \
         beyond the line is a finding about the byte model or the ceiling.{without} {}.",
        names.join("; ")
    );
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}

/// Where numbers may stand without hiding each other or a dot.
#[derive(Default)]
struct Labels {
    /// Left, top, right and bottom of what is drawn.
    taken: Vec<[i32; 4]>,
}

impl Labels {
    fn around((x, y): (i32, i32), half: i32) -> [i32; 4] {
        [x - half, y - half, x + half, y + half]
    }

    /// The middle of a number near `dot`: the first place that is free, and the last resort is right of the dot.
    fn place(&mut self, (x, y): (i32, i32), (left, right): (i32, i32)) -> (i32, i32) {
        let near = [(13, 0), (0, 12), (0, -12), (-13, 0), (13, 12), (-13, 12), (13, -12), (-13, -12)];
        let far = [(0, 24), (24, 0), (-24, 0), (14, 24), (-14, 24), (0, 36), (14, 36), (-14, 36), (0, 48)];
        let places = near.into_iter().chain(far).map(|(dx, dy)| (x + dx, y + dy));
        let free = |&(x, y): &(i32, i32)| {
            let [l, t, r, b] = Labels::number((x, y));
            l >= left && r <= right && self.taken.iter().all(|o| r <= o[0] || l >= o[2] || b <= o[1] || t >= o[3])
        };
        let place = places.clone().find(free).unwrap_or((x + 13, y));
        self.taken.push(Labels::number(place));
        place
    }

    /// The box of a number of two digits.
    fn number((x, y): (i32, i32)) -> [i32; 4] {
        [x - 7, y - 5, x + 7, y + 5]
    }
}
