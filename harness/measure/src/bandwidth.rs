//! Bandwidth efficiency in the whole engine (M7): bytes that a token must move × decode rate ÷ measured ceiling.

use harness_spec::record::{Measure, MetricId, ModelFacts, Sample};
use harness_spec::units::GbPerS;

use crate::describe::median;
use crate::metrics::value;

/// Bytes moved for one decoded token, averaged over the decode of a run.
///
/// Weights once, head included, plus the keys and values of every cached position read, plus one position written. With
/// p prompt tokens, the n − 1 timed decode steps read p + 1 … p + n − 1 positions, so p + n/2 on average.
pub fn bytes_per_token(model: &ModelFacts, prompt_tokens: u64, generated: u64) -> f64 {
    let depth = prompt_tokens as f64 + generated as f64 / 2.0;
    model.weight_bytes_per_token as f64 + model.kv_bytes_per_position as f64 * (depth + 1.0)
}

/// Median traffic of the runs in decode, GB/s.
pub fn achieved<'a>(model: &ModelFacts, runs: impl Iterator<Item = &'a Sample>) -> Option<GbPerS> {
    let rates: Vec<f64> = runs
        .filter_map(|s| {
            let tok_per_s = value(s, MetricId::DecodeTokPerS).ok()?;
            Some(bytes_per_token(model, s.prompt_tokens, s.generated_tokens) * tok_per_s / 1e9)
        })
        .collect();
    median(&rates).map(GbPerS)
}

/// The traffic and its share of the ceiling. A share above 1 is not clamped: it is a finding about the byte model or the
/// ceiling (R30), and whoever shows it says so.
pub fn efficiency(achieved: Option<GbPerS>, ceiling: Option<GbPerS>) -> (Measure, Measure) {
    let Some(achieved) = achieved else {
        let none = || Measure::missing("no valid run has a decode rate");
        return (none(), none());
    };
    let share = match ceiling {
        Some(c) if c.0 > 0.0 => Measure::derived(achieved.0 / c.0),
        _ => Measure::missing("the stream-read ceiling was not measured"),
    };
    (Measure::derived(achieved.0), share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use harness_spec::record::SideRole;
    use std::collections::BTreeMap;

    fn model() -> ModelFacts {
        ModelFacts {
            name: "m".into(),
            sha256: "0".repeat(64),
            file_bytes: 1_100_000,
            architecture: "llama".into(),
            parameters: 1,
            tensors: BTreeMap::new(),
            weight_bytes_per_token: 1_000_000,
            kv_bytes_per_position: 1000,
            layers: 1,
            context: 2048,
        }
    }

    #[test]
    fn bytes_grow_with_depth_as_the_cache_is_read() {
        let m = model();
        for (prompt, want) in [(0, 1_001_000.0), (512, 1_513_000.0), (4096, 5_097_000.0)] {
            assert_eq!(bytes_per_token(&m, prompt, 0), want);
        }
    }

    #[test]
    fn a_scripted_run_reaches_the_share_it_was_scripted_for() {
        // 40 prompt tokens, 50 generated at 500 tok/s: (1 MB + 66 kB) x 500 = 0.533 GB/s.
        let s = run(SideRole::Engine, 0, 20_000, &[2000; 49]);
        let got = achieved(&model(), [&s].into_iter());
        assert!((got.unwrap().0 - 0.533).abs() < 1e-9);
        let (_, share) = efficiency(got, Some(GbPerS(0.41)));
        assert!(share.value.unwrap() > 1.29, "above the ceiling is shown unclamped");
    }

    #[test]
    fn without_a_ceiling_there_is_traffic_and_no_share() {
        let (a, share) = efficiency(Some(GbPerS(2.0)), None);
        assert_eq!(a.value, Some(2.0));
        assert!(share.value.is_none() && share.reason.is_some());
    }
}
