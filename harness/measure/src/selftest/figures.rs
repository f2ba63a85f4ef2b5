//! Figures with their bounds.

use harness_spec::record::{Provenance, SelftestFigure};

/// A count of experiments.
#[derive(Default)]
pub(super) struct Count {
    hits: u64,
    of: u64,
}

impl Count {
    /// One more experiment.
    pub(super) fn add(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.of += 1;
    }

    /// Three standard errors of a count at this share: what chance alone moves it by.
    pub(super) fn chance(&self, share: f64) -> f64 {
        3.0 * (share * (1.0 - share) / self.of.max(1) as f64).sqrt()
    }

    /// The share as a figure within bounds, either of which may be open. Of nothing there is none, which passes no bound.
    pub(super) fn figure(
        &self,
        name: &str,
        over: String,
        provenance: Provenance,
        [at_least, at_most]: [Option<f64>; 2],
    ) -> SelftestFigure {
        let value = (self.of > 0).then(|| self.hits as f64 / self.of as f64);
        let mut figure = of_value(name, over, provenance, value, self.of, [at_least, at_most]);
        figure.hits = Some(self.hits);
        figure
    }
}

/// A figure that is no count.
pub(super) fn of_value(
    name: &str,
    over: String,
    provenance: Provenance,
    value: Option<f64>,
    of: u64,
    [at_least, at_most]: [Option<f64>; 2],
) -> SelftestFigure {
    // Rounding of a bound that was itself computed must not fail a figure that equals it.
    let slack = 1e-9;
    let within = |value: f64| {
        at_least.is_none_or(|least| value >= least - slack) && at_most.is_none_or(|most| value <= most + slack)
    };
    // A record is JSON, which has no NaN.
    let value = value.filter(|v| v.is_finite());
    let passed = value.is_some_and(within);
    SelftestFigure { name: name.to_owned(), over, provenance, value, hits: None, of, at_least, at_most, passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_passes_within_its_bounds_alone_and_never_of_nothing() {
        let of = |value, bounds| of_value("n", String::new(), Provenance::Simulated, Some(value), 100, bounds).passed;
        assert!(of(0.95, [Some(0.95), None]) && !of(0.94, [Some(0.95), None]));
        assert!(of(0.05, [None, Some(0.05)]) && !of(0.06, [None, Some(0.05)]));
        assert!(of(0.5, [None, None]) && !of(f64::NAN, [None, None]));
        let nothing = Count::default().figure("n", String::new(), Provenance::Simulated, [None, Some(1.0)]);
        assert!(!nothing.passed && nothing.value.is_none(), "{nothing:?}");
    }
}
