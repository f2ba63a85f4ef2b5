//! What servers say of their own speed: a second table, never mixed with client times (W8, M §8.7).

use harness_spec::record::{Measure, Sample, ServerReported, ServerTimings, SideRole};

use crate::describe::median;

/// Medians of one side's own durations over the given runs.
pub fn reported<'a>(side: SideRole, runs: impl Iterator<Item = &'a Sample>) -> ServerReported {
    let timings: Vec<&ServerTimings> = runs.filter_map(|s| s.server.as_ref()).collect();
    let rate = |of: fn(&ServerTimings) -> Option<f64>| {
        let rates: Vec<f64> = timings.iter().filter_map(|t| of(t)).collect();
        median(&rates).map_or_else(|| Measure::missing("the server reports no such durations"), Measure::derived)
    };
    ServerReported { side, decode_tok_per_s: rate(decode_rate), prefill_tok_per_s: rate(prefill_rate) }
}

fn decode_rate(t: &ServerTimings) -> Option<f64> {
    let (n, d) = (t.eval_tokens?, t.eval_ns?);
    (n > 0 && d.0 > 0).then(|| n as f64 / d.secs())
}

/// Tokens really processed, a cached prefix left out, over the time on the prompt.
fn prefill_rate(t: &ServerTimings) -> Option<f64> {
    let (n, d) = (t.prompt_tokens?, t.prompt_ns?);
    (n > 0 && d.0 > 0).then(|| n as f64 / d.secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use harness_spec::units::Nanos;

    #[test]
    fn rates_are_tokens_over_the_servers_own_durations() {
        let mut s = run(SideRole::Peer, 0, 5000, &[1000; 49]);
        s.server = Some(ServerTimings {
            prompt_tokens: Some(40),
            prompt_ns: Some(Nanos(20_000_000)),
            eval_tokens: Some(50),
            eval_ns: Some(Nanos(100_000_000)),
            ..Default::default()
        });
        let r = reported(SideRole::Peer, [&s].into_iter());
        assert_eq!((r.prefill_tok_per_s.value, r.decode_tok_per_s.value), (Some(2000.0), Some(500.0)));
    }

    #[test]
    fn a_silent_server_has_no_rate_and_a_reason() {
        let s = run(SideRole::Peer, 0, 5000, &[1000; 49]);
        let r = reported(SideRole::Peer, [&s].into_iter());
        assert!(r.decode_tok_per_s.value.is_none() && r.decode_tok_per_s.reason.is_some());
    }
}
