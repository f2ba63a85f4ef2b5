//! Bandwidth efficiency in the whole engine (M7): bytes that a token must move × decode rate ÷ measured ceiling.

use harness_spec::record::{Ceiling, Measure, MetricId, ModelFacts, ReadAround, Sample};

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

/// Traffic of a run in decode, GB/s.
fn traffic(model: &ModelFacts, run: &Sample) -> Option<f64> {
    let tok_per_s = value(run, MetricId::DecodeTokPerS).ok()?;
    Some(bytes_per_token(model, run.prompt_tokens, run.generated_tokens) * tok_per_s / 1e9)
}

/// What the runs of a block are held against, GB/s.
fn beside(around: &ReadAround) -> f64 {
    (around.before_gb_per_s + around.after_gb_per_s) / 2.0
}

/// What decode of a run as a whole is held against, GB/s: the mean of the reads around its blocks where there are such, else the
/// best pass.
pub fn read_rate(ceiling: &Ceiling) -> f64 {
    let reads: Vec<f64> = ceiling.around.iter().map(beside).collect();
    if reads.is_empty() { ceiling.read_gb_per_s } else { reads.iter().sum::<f64>() / reads.len() as f64 }
}

/// The median traffic of the runs in decode, GB/s, and its share of what was read: of a block's runs of the reads around it, the
/// median over all runs, where there are such reads, else of the ceiling. A share above 1 is not clamped: it is a finding about
/// the byte model or the ceiling (R30), and whoever shows it says so.
pub fn efficiency(model: &ModelFacts, runs: &[&Sample], ceiling: Option<&Ceiling>) -> (Measure, Measure) {
    let rates: Vec<f64> = runs.iter().filter_map(|run| traffic(model, run)).collect();
    let Some(achieved) = median(&rates) else {
        let none = || Measure::missing("no valid run has a decode rate");
        return (none(), none());
    };
    let share = match ceiling {
        Some(c) if !c.around.is_empty() => {
            let read = |run: &Sample| c.around.iter().find(|around| around.block == run.block).map(beside);
            let shares: Vec<f64> = runs.iter().filter_map(|run| Some(traffic(model, run)? / read(run)?)).collect();
            median(&shares).map_or_else(|| Measure::missing("no read surrounds a valid run"), Measure::derived)
        }
        Some(c) if c.read_gb_per_s > 0.0 => Measure::derived(achieved / c.read_gb_per_s),
        _ => Measure::missing("the stream-read ceiling was not measured"),
    };
    (Measure::derived(achieved), share)
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

    fn ceiling(read_gb_per_s: f64, around: Vec<ReadAround>) -> Ceiling {
        let (passes_gb_per_s, when) = (vec![read_gb_per_s], "before".to_owned());
        Ceiling { read_gb_per_s, working_set_bytes: 1, threads: 1, device: None, passes_gb_per_s, when, around }
    }

    /// 40 prompt tokens, 50 generated at 500 tok/s: (1 MB + 66 kB) x 500 = 0.533 GB/s; in a block.
    fn run_in(block: u64, itl_us: u64) -> Sample {
        Sample { block, ..run(SideRole::Engine, 0, 20_000, &[itl_us; 49]) }
    }

    #[test]
    fn a_scripted_run_reaches_the_share_it_was_scripted_for() {
        let s = run_in(0, 2000);
        let (achieved, share) = efficiency(&model(), &[&s], Some(&ceiling(0.41, Vec::new())));
        assert!((achieved.value.unwrap() - 0.533).abs() < 1e-9);
        assert!(share.value.unwrap() > 1.29, "above the ceiling is shown unclamped");
    }

    #[test]
    fn requests_are_held_against_the_reads_around_them() {
        // The memory is twice as fast in the second block, and so is the run; a third block was not surrounded.
        let around = |block, before_gb_per_s, after_gb_per_s| ReadAround { block, before_gb_per_s, after_gb_per_s };
        let read = ceiling(2.0, vec![around(0, 0.7, 0.366), around(1, 1.066, 1.066)]);
        let runs = [run_in(0, 2000), run_in(1, 1000), run_in(2, 100)];
        let (_, share) = efficiency(&model(), &[&runs[0], &runs[1], &runs[2]], Some(&read));
        assert!((share.value.unwrap() - 1.0).abs() < 1e-6, "{share:?}");
        let (_, share) = efficiency(&model(), &[&runs[2]], Some(&read));
        assert!(share.value.is_none());
        assert!((read_rate(&read) - 0.7995).abs() < 1e-9);
        assert_eq!(read_rate(&ceiling(2.0, Vec::new())), 2.0);
    }

    #[test]
    fn without_a_ceiling_there_is_traffic_and_no_share() {
        let s = run_in(0, 2000);
        let (a, share) = efficiency(&model(), &[&s], None);
        assert!(a.value.is_some());
        assert!(share.value.is_none() && share.reason.is_some());
    }
}
