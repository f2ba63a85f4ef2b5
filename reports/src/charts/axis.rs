//! A linear or logarithmic axis with ticks at round numbers.
//!
//! Plotters' own logarithmic axis has ticks at powers of ten only, and most ranges here are narrower than that.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Greatest over least value from which an axis is logarithmic, so that one slow run does not flatten the rest.
const LOG_FROM: f64 = 20.0;

/// An axis with its ticks.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Linear over `lo..hi`, with about `count` ticks.
    pub fn linear(lo: f64, hi: f64, count: usize) -> Axis {
        let (lo, hi) = spread(lo, hi);
        let ticks = linear_ticks(lo, hi, count);
        Axis { lo, hi, log: false, ticks }
    }

    /// Logarithmic over `lo..hi`, both above 0, with about `count` ticks.
    pub fn log(lo: f64, hi: f64, count: usize) -> Axis {
        let (lo, hi) = spread(lo, hi);
        let lo = lo.max(hi * 1e-9);
        Axis { lo, hi, log: true, ticks: log_ticks(lo, hi, count) }
    }

    /// Linear over `lo..hi` with exactly these ticks.
    pub fn with_ticks(lo: f64, hi: f64, ticks: Vec<f64>) -> Axis {
        let (lo, hi) = spread(lo, hi);
        Axis { lo, hi, log: false, ticks }
    }

    /// Logarithmic over `lo..hi` with exactly these ticks.
    pub fn log_with_ticks(lo: f64, hi: f64, ticks: Vec<f64>) -> Axis {
        let (lo, hi) = spread(lo, hi);
        Axis { lo, hi, log: true, ticks: ticks.into_iter().filter(|t| (lo..=hi).contains(t)).collect() }
    }

    /// An axis that holds `least..greatest` with some room, logarithmic where the values span decades.
    pub fn around(least: f64, greatest: f64, count: usize) -> Axis {
        if least > 0.0 && greatest / least >= LOG_FROM {
            return Axis::log(least / 1.15, greatest * 1.15, count);
        }
        let room = (greatest - least).max(greatest.abs() * 0.01) * 0.06;
        // A rate or a time is never negative, and room below 0 would suggest that it could be.
        let lo = if least >= 0.0 { (least - room).max(0.0) } else { least - room };
        Axis::linear(lo, greatest + room, count)
    }

    /// Whether it is logarithmic, which its title must say.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// `n` rows of height 1 from the bottom, without ticks.
    pub fn rows(n: usize) -> Axis {
        Axis { lo: 0.0, hi: n.max(1) as f64, log: false, ticks: Vec::new() }
    }

    /// A tick as text: with the decimals that tell neighbours apart.
    fn label(&self, v: f64) -> String {
        let step = self.ticks.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
        let finest = if self.log { v.abs().min(step) } else { step };
        let digits =
            if finest.is_finite() && finest > 0.0 { (-finest.log10() - 1e-9).ceil().clamp(0.0, 6.0) } else { 0.0 };
        let digits = digits as usize;
        let text = format!("{v:.digits$}");
        if self.log && text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let at = if self.log {
            (value.max(self.lo * 1e-3).ln() - self.lo.ln()) / (self.hi.ln() - self.lo.ln())
        } else {
            (value - self.lo) / (self.hi - self.lo)
        };
        from + (at * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.lo..self.hi
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

/// `lo..hi` in order, and wide enough to divide by.
fn spread(lo: f64, hi: f64) -> (f64, f64) {
    let (lo, hi) = (lo.min(hi), lo.max(hi));
    if hi - lo > hi.abs() * 1e-9 { (lo, hi) } else { (lo - lo.abs() * 0.05 - 1e-9, hi + hi.abs() * 0.05 + 1e-9) }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(lo: f64, hi: f64, count: usize) -> Vec<f64> {
    let rough = (hi - lo) / count.max(2) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= rough * 0.999).unwrap_or(power * 10.0);
    let (first, last) = ((lo / step - 1e-9).ceil() as i64, (hi / step + 1e-9).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// 1-2-5 in each decade, fewer over many decades; linear ones where the range is narrower than that.
fn log_ticks(lo: f64, hi: f64, count: usize) -> Vec<f64> {
    let (first, last) = (lo.log10().floor() as i32, hi.log10().ceil() as i32);
    for factors in [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]] {
        let ticks: Vec<f64> = (first..=last)
            .flat_map(|decade| factors.iter().map(move |f| f * 10f64.powi(decade)))
            .filter(|&t| t >= lo * 0.999 && t <= hi * 1.001)
            .collect();
        if ticks.len() < 3 {
            break;
        }
        if ticks.len() <= count + 2 {
            return ticks;
        }
    }
    let ticks = linear_ticks(lo, hi, count);
    ticks.into_iter().filter(|&t| t > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|&t| axis.label(t)).collect()
    }

    #[test]
    fn ticks_are_round_and_their_labels_tell_neighbours_apart() {
        assert_eq!(labels(&Axis::linear(92.0, 131.0, 5)), ["100", "110", "120", "130"]);
        assert_eq!(labels(&Axis::log(0.1, 20.0, 8)), ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]);
        let narrow = labels(&Axis::log(0.92, 1.31, 6));
        assert!(narrow.len() >= 4 && narrow.contains(&"1".to_owned()), "{narrow:?}");
    }

    #[test]
    fn values_that_span_decades_get_a_logarithmic_axis_and_equal_values_still_get_one() {
        assert!(Axis::around(1.0, 50.0, 6).log);
        assert!(!Axis::around(10.0, 50.0, 6).log);
        let flat = Axis::around(7.0, 7.0, 6);
        assert!(flat.hi > 7.0 && flat.lo < 7.0);
        assert_eq!(Axis::around(0.0, 3.0, 6).lo, 0.0);
    }

    #[test]
    fn the_ends_of_an_axis_map_to_the_ends_of_its_pixels() {
        for axis in [Axis::linear(2.0, 4.0, 5), Axis::log(0.5, 8.0, 5)] {
            assert_eq!(axis.map(&axis.lo, (100, 300)), 100);
            assert_eq!(axis.map(&axis.hi, (100, 300)), 300);
        }
        assert_eq!(Axis::log(1.0, 4.0, 5).map(&2.0, (0, 100)), 50);
    }
}
