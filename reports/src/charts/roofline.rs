//! Where each side stands under the bandwidth roof: achieved traffic in decode against the measured read ceiling.

use harness_spec::record::{Ceiling, RunRecord, SideFacts};
use plotters::prelude::Color;
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::easel::{self, Frame, colour};
use super::palette::{BAND, INK, MUTED};
use super::{Chart, ChartOutcome};
use crate::error::ReportError;
use crate::view::format::{self, number, percent, shortened};

const NAME: &str = "roofline";
const TITLE: &str = "Roofline position: decode traffic against the read ceiling";
/// Height of a side's bar with its room, pixels.
const ROW: u32 = 64;

/// Draws a bar a side.
pub(super) fn draw(record: &RunRecord) -> Result<ChartOutcome, ReportError> {
    let omitted = |why: &str| ChartOutcome::Omitted { name: NAME, title: TITLE.to_owned(), why: why.to_owned() };
    let Some(ceiling) = record.ceiling.as_ref().filter(|c| c.read_gb_per_s.is_finite() && c.read_gb_per_s > 0.0) else {
        return Ok(omitted("the stream-read ceiling was not measured in this run"));
    };
    let bars: Vec<(&SideFacts, f64)> = record
        .sides
        .iter()
        .filter_map(|s| {
            let shown = format::measure(&s.achieved_gb_per_s, number).is_ok();
            s.achieved_gb_per_s.value.filter(|_| shown).map(|v| (s, v))
        })
        .collect();
    if bars.is_empty() {
        return Ok(omitted("no side has a decode rate to derive its traffic from"));
    }
    let greatest = bars.iter().map(|&(_, v)| v).fold(fastest(ceiling), f64::max);
    let bytes = record.model.weight_bytes_per_token;
    let frame = Frame {
        name: NAME,
        title: TITLE.to_owned(),
        legend: vec![(None, bound(ceiling, bytes))],
        height: 64 + 26 + ROW * bars.len() as u32 + 54,
        left: 190,
        right: 40,
        x: (Axis::linear(0.0, greatest * 1.08, 8), "weight and KV traffic in decode, GB/s"),
        y: (Axis::linear(0.0, bars.len() as f64 + 26.0 / f64::from(ROW), 1), ""),
    };
    let svg = easel::drawn(&frame, |sheet, plot| {
        let (top, bottom) = plot.down();
        let passes = ceiling.passes_gb_per_s.iter().copied().filter(|v| v.is_finite());
        let slowest = passes.fold(ceiling.read_gb_per_s, f64::min);
        easel::rect(sheet, (plot.x(slowest), top), (plot.x(fastest(ceiling)), bottom), &BAND.to_rgba())?;
        for (at, &(side, achieved)) in bars.iter().enumerate() {
            let middle = plot.y(bars.len() as f64 - at as f64 - 0.5);
            let label = shortened(&format::one_line(&side.label), 27);
            easel::text(sheet, &label, (182, middle), 12, &INK, HPos::Right)?;
            easel::rect(
                sheet,
                (plot.x(0.0), middle - 13),
                (plot.x(achieved), middle + 13),
                &colour(side.role).mix(0.85),
            )?;
            let efficiency = format::measure(&side.bandwidth_efficiency, percent);
            let whole = if ceiling.around.is_empty() { "ceiling" } else { "reads around it" };
            let of = efficiency.map(|e| format!(", {e} of the {whole}")).unwrap_or_default();
            let figures = format!("{} GB/s{of}", number(achieved));
            easel::text(sheet, &figures, (plot.x(0.0) + 8, middle + 23), 12, &INK, HPos::Left)?;
        }
        let roof = plot.x(ceiling.read_gb_per_s);
        easel::line(sheet, (roof, top), (roof, bottom), &INK, 2)?;
        let text = format!("ceiling {} GB/s", number(ceiling.read_gb_per_s));
        easel::text(sheet, &text, (roof - 8, top + 12), 12, &MUTED, HPos::Right)
    })?;
    let caption = format!(
        "Bytes a token must read (weights as stored and the KV cache at its depth) times decode tok/s. The line is the \
         best of {} stream-read passes on this machine in the same run, the band spans all of them. A bar beyond the \
         line means that the byte model or the ceiling is wrong.",
        ceiling.passes_gb_per_s.len()
    );
    Ok(ChartOutcome::Drawn(Chart { name: NAME, title: frame.title, caption, svg }))
}

/// The fastest pass, which is the ceiling unless the record says otherwise.
fn fastest(ceiling: &Ceiling) -> f64 {
    ceiling.passes_gb_per_s.iter().copied().filter(|v| v.is_finite()).fold(ceiling.read_gb_per_s, f64::max)
}

/// What the ceiling means for this model.
fn bound(ceiling: &Ceiling, bytes_per_token: u64) -> String {
    if bytes_per_token == 0 {
        return "bytes per token are not known".to_owned();
    }
    format!(
        "{:.1} MB of weights a token; at the ceiling that is {} tok/s",
        bytes_per_token as f64 / 1e6,
        number(ceiling.read_gb_per_s * 1e9 / bytes_per_token as f64)
    )
}
