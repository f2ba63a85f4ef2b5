//! One definition of each metric of one request (MEASURING.md §2, R28).
//!
//! Everything is computed from a [`Sample`]: times on the client's one monotonic clock. What the server says of itself
//! is in [`crate::server`] and never enters here.

use harness_spec::record::{MetricId, Sample, SampleStatus};
use harness_spec::units::Nanos;

use crate::describe::stdev;
use crate::percentile::percentile;

/// Why a metric has no value. It is shown in place of the number: unmeasured is never 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Missing {
    /// The request did not complete.
    #[error("the request did not complete")]
    Incomplete,
    /// A rate needs an interval, and an interval two tokens.
    #[error("{n} token(s) were generated, at least {need} are needed")]
    TooFewTokens {
        /// Generated.
        n: u64,
        /// Needed.
        need: u64,
    },
    /// ITL is one value a token, so a chunk of several has none.
    #[error("a stream chunk did not carry exactly one token, so inter-token times are not defined")]
    MergedChunks,
    /// M9's least n.
    #[error("p{percent} needs {need} values, there are {n}")]
    TooFewForPercentile {
        /// Which percentile.
        percent: f64,
        /// Values there are.
        n: usize,
        /// Values needed.
        need: usize,
    },
    /// The same, of the latencies of one prompt and length.
    #[error("p{percent} needs {need} values of one prompt and length, and the most that one has is {n}")]
    TooFewOfOnePrompt {
        /// Which percentile.
        percent: f64,
        /// Most values of a prompt and length.
        n: usize,
        /// Values needed.
        need: usize,
    },
    /// M8 forbids it.
    #[error("jitter over mixed output lengths is refused: {lengths:?} tokens")]
    MixedLengths {
        /// The lengths found, ascending.
        lengths: Vec<u64>,
    },
    /// M8 forbids it.
    #[error("jitter is pooled over runs of one prompt at most, these are of {prompts}")]
    MixedPrompts {
        /// How many.
        prompts: usize,
    },
    /// A percentile of this depth is taken over pooled runs, never of one.
    #[error("p99 is taken over the pooled runs of one prompt and length, not of one run")]
    PooledOnly,
    /// No run is left.
    #[error("no valid run is left")]
    NoRuns,
    /// The two clock readings coincide.
    #[error("the interval is below the clock's resolution")]
    NoInterval,
}

/// Whether the request ran to its end.
pub fn complete(sample: &Sample) -> bool {
    matches!(sample.status, SampleStatus::Length | SampleStatus::Stop)
}

/// Inter-token latencies in ms, one a token after the first.
///
/// # Errors
/// [`Missing`] where the run did not complete, has fewer than two tokens, or merged tokens in a chunk.
pub fn itl_ms(sample: &Sample) -> Result<Vec<f64>, Missing> {
    require_tokens(sample, 2)?;
    if !sample.one_token_per_chunk || sample.token_ns.len() as u64 != sample.generated_tokens {
        return Err(Missing::MergedChunks);
    }
    Ok(sample.token_ns.windows(2).map(|w| (w[1] - w[0]).millis()).collect())
}

/// Time per output token in ms: (tₙ − t₁)/(n − 1), TTFT excluded. It stays defined where chunks carry several tokens.
///
/// # Errors
/// [`Missing`] where the run did not complete or has fewer than two tokens.
pub fn tpot_ms(sample: &Sample) -> Result<f64, Missing> {
    require_tokens(sample, 2)?;
    let (first, last) = first_and_last(sample)?;
    if last <= first {
        return Err(Missing::NoInterval);
    }
    Ok((last - first).millis() / (sample.generated_tokens - 1) as f64)
}

/// The value of a metric for one request, in the unit that the metric's name gives.
///
/// # Errors
/// [`Missing`] with the reason why this run has no such value.
pub fn value(sample: &Sample, id: MetricId) -> Result<f64, Missing> {
    match id {
        MetricId::DecodeTokPerS => tpot_ms(sample).map(|ms| 1e3 / ms),
        MetricId::TtftMs => ttft(sample).map(Nanos::millis),
        MetricId::PromptTokPerSThroughTtft => ttft(sample).map(|t| sample.prompt_tokens as f64 / t.secs()),
        MetricId::TotalMs => {
            require_tokens(sample, 1)?;
            let (_, last) = first_and_last(sample)?;
            Ok((last - sample.submit_ns).millis())
        }
        MetricId::ItlP50Ms => percentile(&itl_ms(sample)?, 50.0).map(|p| p.value),
        MetricId::ItlP99Ms => Err(Missing::PooledOnly),
        MetricId::ItlJitterMs => {
            let itl = itl_ms(sample)?;
            stdev(&itl).ok_or(Missing::TooFewTokens { n: sample.generated_tokens, need: 3 })
        }
    }
}

/// First token − submit.
fn ttft(sample: &Sample) -> Result<Nanos, Missing> {
    require_tokens(sample, 1)?;
    let (first, _) = first_and_last(sample)?;
    if first <= sample.submit_ns {
        return Err(Missing::NoInterval);
    }
    Ok(first - sample.submit_ns)
}

fn require_tokens(sample: &Sample, need: u64) -> Result<(), Missing> {
    if !complete(sample) {
        return Err(Missing::Incomplete);
    }
    if sample.generated_tokens < need {
        return Err(Missing::TooFewTokens { n: sample.generated_tokens, need });
    }
    Ok(())
}

fn first_and_last(sample: &Sample) -> Result<(Nanos, Nanos), Missing> {
    match (sample.token_ns.first(), sample.token_ns.last()) {
        (Some(&first), Some(&last)) => Ok((first, last)),
        _ => Err(Missing::TooFewTokens { n: 0, need: 1 }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use harness_spec::record::SideRole;

    /// A complete run with the first token after `ttft_us` and then one every `itl_us`.
    pub fn run(side: SideRole, pair: u64, ttft_us: u64, itl_us: &[u64]) -> Sample {
        let mut t = 5_000_000 + ttft_us * 1000;
        let mut token_ns = vec![Nanos(t)];
        for gap in itl_us {
            t += gap * 1000;
            token_ns.push(Nanos(t));
        }
        let n = token_ns.len() as u64;
        Sample {
            seq: 0,
            pair,
            block: 0,
            side,
            prompt: "relativity".into(),
            asked_tokens: n,
            nonce: "00000000".into(),
            submit_ns: Nanos(5_000_000),
            end_ns: Nanos(t + 1000),
            token_ns,
            one_token_per_chunk: true,
            prompt_tokens: 40,
            generated_tokens: n,
            text: String::new(),
            status: SampleStatus::Length,
            server: None,
            dropped: None,
            rss_bytes: None,
        }
    }

    #[test]
    fn the_scripted_run_gives_every_metric_back() {
        // 20 ms to the first token, then 49 tokens 2 ms apart.
        let s = run(SideRole::Engine, 0, 20_000, &[2000; 49]);
        let near = |id: MetricId, want: f64| {
            let got = value(&s, id).unwrap();
            assert!((got / want - 1.0).abs() < 1e-3, "{id:?}: {got} instead of {want}");
        };
        near(MetricId::DecodeTokPerS, 500.0);
        near(MetricId::TtftMs, 20.0);
        near(MetricId::PromptTokPerSThroughTtft, 2000.0);
        near(MetricId::TotalMs, 118.0);
        near(MetricId::ItlP50Ms, 2.0);
        assert_eq!(value(&s, MetricId::ItlJitterMs), Ok(0.0));
        assert_eq!(value(&s, MetricId::ItlP99Ms), Err(Missing::PooledOnly));
    }

    #[test]
    fn a_merged_chunk_takes_itl_but_leaves_tpot() {
        let mut s = run(SideRole::Engine, 0, 10_000, &[1000; 29]);
        s.one_token_per_chunk = false;
        s.generated_tokens = 40;
        assert_eq!(value(&s, MetricId::ItlP50Ms), Err(Missing::MergedChunks));
        assert!((tpot_ms(&s).unwrap() - 29.0 / 39.0).abs() < 1e-12);
    }

    #[test]
    fn a_failed_run_has_no_metric_at_all() {
        let mut s = run(SideRole::Engine, 0, 10_000, &[1000; 29]);
        s.status = SampleStatus::Failed { error: "cut".into() };
        for id in [MetricId::DecodeTokPerS, MetricId::TtftMs, MetricId::TotalMs, MetricId::ItlP50Ms] {
            assert_eq!(value(&s, id), Err(Missing::Incomplete));
        }
    }

    #[test]
    fn one_token_has_a_ttft_and_no_rate() {
        let s = run(SideRole::Engine, 0, 10_000, &[]);
        assert!(value(&s, MetricId::TtftMs).is_ok());
        assert_eq!(value(&s, MetricId::DecodeTokPerS), Err(Missing::TooFewTokens { n: 1, need: 2 }));
    }

    #[test]
    fn the_median_itl_of_nineteen_gaps_is_refused() {
        let s = run(SideRole::Engine, 0, 10_000, &[1000; 19]);
        assert_eq!(value(&s, MetricId::ItlP50Ms), Err(Missing::TooFewForPercentile { percent: 50.0, n: 19, need: 20 }));
    }
}
