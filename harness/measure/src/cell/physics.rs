//! The floor that physics sets: nothing is faster than the device (R5, R30).

use harness_spec::units::Bytes;

/// Above this share of a measured ceiling a time is no measurement.
pub const IMPLAUSIBLE: f64 = 1.05;

/// Fewer bytes than this are not held against a read rate of memory: activations and small weights lie in a cache whatever
/// the policy says, as whoever made them has just written them or the processor has fetched them ahead.
const LEAST_READ: Bytes = Bytes(128 << 10);

/// Measured ceilings of the device at the residency of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceiling {
    /// Read rate, GB/s; `None` if it was not measured.
    pub read_gb_per_s: Option<f64>,
    /// Arithmetic, 10⁹ operations a second; `None` if it was not measured.
    pub gflop_per_s: Option<f64>,
}

/// What physics says of a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Physics {
    /// At or below the ceilings.
    Possible,
    /// Between 100 and 105 % of one: an error of the byte model or of the ceiling, shown as it is.
    Finding(String),
    /// Above 105 % of one: it cannot win.
    Implausible(String),
}

impl Ceiling {
    /// Judges a median time of one launch.
    pub fn judge(&self, median_ns: f64, bytes: Bytes, flops: u64) -> Physics {
        // Bytes a nanosecond and GB/s are the same number, and so are operations a nanosecond and Gop/s.
        let rates = [
            ("read", bytes.0 as f64 / median_ns, self.read_bound(bytes), "GB/s"),
            ("arithmetic", flops as f64 / median_ns, self.gflop_per_s, "Gop/s"),
        ];
        let mut found = Physics::Possible;
        for (what, rate, ceiling, unit) in rates {
            let Some(ceiling) = ceiling.filter(|c| *c > 0.0) else { continue };
            let share = rate / ceiling;
            let text = || {
                format!(
                    "{rate:.0} {unit} is {:.1} % of the {ceiling:.0} {unit} that was measured as the ceiling of {what}",
                    share * 100.0
                )
            };
            if share > IMPLAUSIBLE {
                return Physics::Implausible(text());
            }
            if share > 1.0 {
                found = Physics::Finding(text());
            }
        }
        found
    }

    /// The least time, ns, that is not implausible.
    pub fn least_ns(&self, bytes: Bytes, flops: u64) -> f64 {
        let at =
            |amount: f64, ceiling: Option<f64>| ceiling.filter(|c| *c > 0.0).map_or(0.0, |c| amount / c / IMPLAUSIBLE);
        at(bytes.0 as f64, self.read_bound(bytes)).max(at(flops as f64, self.gflop_per_s))
    }

    /// The read rate that bounds a launch of so many bytes, if one does.
    fn read_bound(&self, bytes: Bytes) -> Option<f64> {
        self.read_gb_per_s.filter(|_| bytes >= LEAST_READ)
    }

    /// Share of the read ceiling that a median time reaches, unclamped.
    pub fn read_share(&self, median_ns: f64, bytes: Bytes) -> Option<f64> {
        self.read_gb_per_s.filter(|c| *c > 0.0).map(|c| bytes.0 as f64 / median_ns / c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_above_a_ceiling_is_a_finding_and_more_is_implausible() {
        let c = Ceiling { read_gb_per_s: Some(1000.0), gflop_per_s: Some(50_000.0) };
        assert_eq!(c.judge(1000.0, Bytes(1_000_000), 2_000_000), Physics::Possible);
        assert!(matches!(c.judge(1000.0, Bytes(1_040_000), 0), Physics::Finding(t) if t.contains("104.0 %")));
        assert!(matches!(c.judge(1000.0, Bytes(1_060_000), 0), Physics::Implausible(t) if t.contains("1060 GB/s")));
        assert!(matches!(c.judge(1.0, Bytes(1), 60_000), Physics::Implausible(t) if t.contains("arithmetic")));
    }

    #[test]
    fn what_fits_a_private_cache_is_not_bound_by_the_rate_of_memory() {
        let c = Ceiling { read_gb_per_s: Some(37.0), gflop_per_s: None };
        assert_eq!(c.judge(140.0, Bytes(7000), 1), Physics::Possible);
        assert_eq!(c.least_ns(Bytes(7000), 1), 0.0);
        assert!(matches!(c.judge(140.0, Bytes(1 << 20), 1), Physics::Implausible(_)));
    }

    #[test]
    fn without_a_ceiling_nothing_is_judged_and_the_share_is_unknown() {
        let none = Ceiling::default();
        assert_eq!(none.judge(1e-9, Bytes(u64::MAX), u64::MAX), Physics::Possible);
        assert_eq!(none.read_share(1.0, Bytes(1)), None);
    }
}
