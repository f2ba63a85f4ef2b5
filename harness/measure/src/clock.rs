//! Clock awareness without root (MEASURING.md §5): what counts as throttled, and how long to wait for it to pass.

use harness_spec::CellSample;
use harness_spec::units::Nanos;

/// A sample below this share of the reference clock is dropped.
pub const LEAST_SHARE: f64 = 0.75;

/// Members of a pair may differ by this much of the larger clock.
pub const PAIR_SPREAD: f64 = 0.03;

/// The clock that samples are held against: the plateau of this host's canary, never the data sheet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReferenceClock(pub Option<f64>);

impl ReferenceClock {
    /// Whether the sample ran under [`LEAST_SHARE`] of the reference. Without a clock on either side nothing is known and
    /// nothing is dropped.
    pub fn throttled(self, sample: &CellSample) -> bool {
        match (self.0, sample.sm_clock_mhz) {
            (Some(reference), Some(mhz)) => mhz < LEAST_SHARE * reference,
            _ => false,
        }
    }
}

/// Whether two samples ran at clocks so different that their pair must be run again.
pub fn clocks_differ(a: &CellSample, b: &CellSample) -> bool {
    let sm = match (a.sm_clock_mhz, b.sm_clock_mhz) {
        (Some(x), Some(y)) => (x - y).abs() > PAIR_SPREAD * x.max(y),
        _ => false,
    };
    let memory = match (a.mem_clock_mhz, b.mem_clock_mhz) {
        (Some(x), Some(y)) => x != y,
        _ => false,
    };
    sm || memory
}

/// The pauses of one cell: 50 ms, half as long again after more than two throttled samples in a row, up to 0.5 s, and at
/// most 60 s in all.
#[derive(Clone, Debug)]
pub struct Waiting {
    in_a_row: u32,
    pause: u64,
    spent: u64,
    limit: u64,
}

const FIRST_PAUSE: u64 = 50_000_000;
const LONGEST_PAUSE: u64 = 500_000_000;

impl Waiting {
    /// With so much waiting allowed.
    pub fn within(limit: Nanos) -> Waiting {
        Waiting { in_a_row: 0, pause: FIRST_PAUSE, spent: 0, limit: limit.0 }
    }

    /// A sample was throttled: how long to wait now. `None` once the waiting is used up.
    pub fn throttled(&mut self) -> Option<Nanos> {
        self.in_a_row += 1;
        if self.in_a_row > 2 {
            self.pause = (self.pause + self.pause / 2).min(LONGEST_PAUSE);
        }
        if self.spent + self.pause > self.limit {
            return None;
        }
        self.spent += self.pause;
        Some(Nanos(self.pause))
    }

    /// A sample ran at full clock: the next pause is short again.
    pub fn recovered(&mut self) {
        self.in_a_row = 0;
        self.pause = FIRST_PAUSE;
    }

    /// Waiting so far.
    pub fn spent(&self) -> Nanos {
        Nanos(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sm: Option<f64>, mem: Option<f64>) -> CellSample {
        CellSample { ns: 1.0, launches: 1, sm_clock_mhz: sm, mem_clock_mhz: mem, verified: false }
    }

    #[test]
    fn three_quarters_of_the_reference_is_kept_and_less_is_dropped() {
        let reference = ReferenceClock(Some(2000.0));
        assert!(!reference.throttled(&at(Some(1500.0), None)));
        assert!(reference.throttled(&at(Some(1499.0), None)));
        assert!(!reference.throttled(&at(None, None)));
        assert!(!ReferenceClock(None).throttled(&at(Some(1.0), None)));
    }

    #[test]
    fn a_pair_is_run_again_above_three_percent_or_at_another_memory_clock() {
        assert!(!clocks_differ(&at(Some(2000.0), Some(5.0)), &at(Some(1941.0), Some(5.0))));
        assert!(clocks_differ(&at(Some(2000.0), Some(5.0)), &at(Some(1939.0), Some(5.0))));
        assert!(clocks_differ(&at(Some(2000.0), Some(5.0)), &at(Some(2000.0), Some(6.0))));
        assert!(!clocks_differ(&at(None, None), &at(Some(1.0), Some(1.0))));
    }

    #[test]
    fn pauses_grow_after_the_second_in_a_row_up_to_half_a_second_and_end_at_the_limit() {
        let mut w = Waiting::within(Nanos(60_000_000_000));
        let first: Vec<u64> = (0..4).map(|_| w.throttled().unwrap().0 / 1_000_000).collect();
        assert_eq!(first, [50, 50, 75, 112]);
        let mut longest = 0;
        while let Some(p) = w.throttled() {
            longest = longest.max(p.0);
        }
        assert_eq!(longest, 500_000_000);
        assert!(w.spent().0 <= 60_000_000_000 && w.spent().0 > 59_000_000_000);
        w.recovered();
        assert_eq!(Waiting::within(Nanos(60)).throttled(), None, "a pause never exceeds the limit");
    }
}
