//! The canary: ceilings of the device before and after a suite, and whether it stayed the same machine (§5).

use harness_spec::Canary;

/// A shift of more than this makes a suite suspect.
pub const SUSPECT_SHIFT: f64 = 0.05;

/// Why a suite between these two canaries is suspect; `None` if it is not. `launches`: whether kernels were launched by
/// themselves. Where only tokens of the engine were timed an empty launch says nothing of them: on an H200 it takes one of two
/// times, 501 or 679 ns, from whenever a context has loaded enough on, while reads, clocks and tokens stay as they were.
pub fn suspect(before: &Canary, after: &Canary, launches: bool) -> Option<String> {
    let of_launches = |canary: &Canary| canary.empty_launch_ns.filter(|_| launches);
    let moved = [
        ("read rate", Some(before.read_gb_per_s), Some(after.read_gb_per_s), "GB/s"),
        ("empty launch", of_launches(before), of_launches(after), "ns"),
        ("SM clock under load", before.sm_clock_mhz, after.sm_clock_mhz, "MHz"),
        ("arithmetic rate", before.gflop_per_s, after.gflop_per_s, "Gop/s"),
    ];
    let shifts: Vec<String> = moved
        .into_iter()
        .filter_map(|(what, a, b, unit)| {
            let (a, b) = (a?, b?);
            let shift = b / a - 1.0;
            (shift.is_nan() || shift.abs() > SUSPECT_SHIFT)
                .then(|| format!("{what} moved from {a:.0} to {b:.0} {unit} ({:+.1} %)", shift * 100.0))
        })
        .collect();
    (!shifts.is_empty()).then(|| format!("the device changed during the run: {}", shifts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_spec::units::Bytes;

    fn canary(read: f64, launch: Option<f64>) -> Canary {
        Canary {
            working_set: Bytes(1),
            read_gb_per_s: read,
            empty_launch_ns: launch,
            sm_clock_mhz: Some(1980.0),
            gflop_per_s: None,
        }
    }

    #[test]
    fn a_shift_above_five_percent_names_what_moved() {
        assert_eq!(suspect(&canary(4000.0, Some(2000.0)), &canary(3850.0, Some(2090.0)), true), None);
        let text = suspect(&canary(4000.0, Some(2000.0)), &canary(3700.0, Some(2000.0)), true).unwrap();
        assert!(text.contains("read rate moved from 4000 to 3700 GB/s (-7.5 %)"), "{text}");
        assert!(suspect(&canary(4000.0, None), &canary(f64::NAN, None), true).is_some());
    }

    #[test]
    fn an_empty_launch_that_moved_counts_where_kernels_are_launched_and_not_where_tokens_are_timed() {
        let (before, after) = (canary(4000.0, Some(501.0)), canary(4010.0, Some(679.0)));
        assert!(suspect(&before, &after, true).unwrap().contains("empty launch moved from 501 to 679 ns"));
        assert_eq!(suspect(&before, &after, false), None);
        assert!(suspect(&before, &canary(3000.0, Some(501.0)), false).is_some());
    }
}
