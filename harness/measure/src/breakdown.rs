//! From the raw times of prefixes to what each step of a token costs, and whether that adds up (SPEC.md H12).

use harness_spec::record::{Breakdown, BreakdownStep, Check, DecodeTimes, RawBreakdown};

use crate::describe::median;
use crate::percentile::percentile;

/// Share of the wall time of a token by which the sum of its steps may differ from it.
pub const MOST_APART: f64 = 0.05;

/// The costs of the steps: each is the median of its prefix less that of the prefix before, whatever its sign, so that they
/// add up to the median of the whole graph.
///
/// # Errors
/// What is missing: a step without a time, or decoding without a token.
pub fn summarise(raw: &RawBreakdown) -> Result<Breakdown, &'static str> {
    let mut before = 0.0;
    let mut steps = Vec::with_capacity(raw.steps.len());
    for step in &raw.steps {
        let prefix_ns = median(&step.prefix_ns).ok_or("a step of the token has no time")?;
        let cost_ns = prefix_ns - before;
        before = prefix_ns;
        let (op, shape, variant) = (step.op.clone(), step.shape.clone(), step.variant.clone());
        steps.push(BreakdownStep { op, shape, variant, prefix_ns, cost_ns, bytes: step.bytes });
    }
    let of_window = |gaps: &Vec<u64>| gaps.iter().sum::<u64>() as f64 / gaps.len().max(1) as f64;
    let wall: Vec<f64> = raw.gaps_ns.iter().filter(|gaps| !gaps.is_empty()).map(of_window).collect();
    let gaps: Vec<f64> = raw.gaps_ns.iter().flatten().map(|&gap| gap as f64).collect();
    let no_tokens = "no token was decoded";
    let decode = DecodeTimes {
        window: raw.window,
        windows: wall.len() as u64,
        wall_ns: median(&wall).ok_or(no_tokens)?,
        itl_p50_ns: median(&gaps).ok_or(no_tokens)?,
        itl_p99_ns: percentile(&gaps, 99.0).ok().map(|p| p.value),
        itl_max_ns: gaps.iter().copied().fold(0.0, f64::max),
        counters: raw.counters,
    };
    let rounds = raw.steps.iter().map(|step| step.prefix_ns.len()).min().unwrap_or(0) as u64;
    let (depth, position, programmatic_edges) = (raw.depth, raw.position, raw.programmatic_edges);
    Ok(Breakdown { depth, position, rounds, steps, programmatic_edges, sum_ns: before, decode })
}

/// What must hold of a breakdown: it adds up, and a token costs the launch of one graph, four bytes back and nothing else.
pub fn checks(b: &Breakdown) -> Vec<Check> {
    let at = format!("at depth {}", b.depth);
    let ratio = b.sum_ns / b.decode.wall_ns;
    let c = &b.decode.counters;
    let tokens = c.generated.max(1) as f64;
    let per_token = |n: u64| n as f64 / tokens;
    vec![
        Check {
            name: format!("steps of a token add up to its wall time within 5 %, {at}"),
            // Written so that NaN fails.
            passed: Some((ratio - 1.0).abs() <= MOST_APART),
            found: format!(
                "{:.2} us over {} steps against {:.2} us over {} tokens: ratio {ratio:.4}",
                b.sum_ns / 1e3,
                b.steps.len(),
                b.decode.wall_ns / 1e3,
                b.decode.tokens()
            ),
        },
        Check {
            name: format!("a greedy token is one graph, four bytes back, nothing sent and no wait in the driver, {at}"),
            passed: Some(
                c.generated > 0
                    && c.graph_launches <= c.generated
                    && c.kernel_launches == 0
                    && c.d2h_bytes <= 4 * c.generated
                    && c.h2d_bytes == 0
                    && c.syncs == 0,
            ),
            found: format!(
                "{:.3} graphs, {:.3} kernels beside them, {:.2} bytes back, {:.2} sent, {:.3} waits a token over {} tokens",
                per_token(c.graph_launches),
                per_token(c.kernel_launches),
                per_token(c.d2h_bytes),
                per_token(c.h2d_bytes),
                per_token(c.syncs),
                c.generated
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use harness_spec::Shape;
    use harness_spec::record::{DeviceCounters, RawStep};

    use super::*;

    fn raw(prefixes: &[&[f64]], gap_ns: u64) -> RawBreakdown {
        let step = |prefix: &&[f64]| RawStep {
            op: "add".into(),
            shape: Shape::of([("COUNT", 4)]),
            variant: "add/plain@cuda".parse().unwrap(),
            bytes: Some(48),
            prefix_ns: prefix.to_vec(),
        };
        RawBreakdown {
            depth: 8,
            position: 12,
            window: 4,
            programmatic_edges: None,
            steps: prefixes.iter().map(step).collect(),
            gaps_ns: vec![vec![gap_ns; 4]; 3],
            counters: DeviceCounters { generated: 12, graph_launches: 9, d2h_bytes: 48, ..DeviceCounters::default() },
        }
    }

    #[test]
    fn costs_are_differences_of_medians_keep_their_sign_and_add_up_to_the_whole() {
        let b = summarise(&raw(&[&[100.0, 110.0, 500.0], &[90.0, 95.0, 100.0], &[300.0, 310.0, 305.0]], 300)).unwrap();
        let costs: Vec<f64> = b.steps.iter().map(|s| s.cost_ns).collect();
        assert_eq!(costs, [110.0, -15.0, 210.0]);
        assert_eq!((costs.iter().sum::<f64>(), b.sum_ns, b.rounds), (305.0, 305.0, 3));
        assert_eq!((b.decode.wall_ns, b.decode.tokens(), b.decode.itl_p99_ns), (300.0, 12, None));
    }

    #[test]
    fn a_sum_beyond_five_percent_fails_its_check_on_either_side_and_stays_in_the_record() {
        for (gap, passed) in [(305, true), (291, true), (290, false), (322, false), (320, true)] {
            let b = summarise(&raw(&[&[100.0], &[305.0]], gap)).unwrap();
            let check = &checks(&b)[0];
            assert_eq!(check.passed, Some(passed), "{gap}: {}", check.found);
            assert!(check.found.contains("0.30 us over 2 steps"), "{}", check.found);
        }
    }

    #[test]
    fn a_byte_or_a_launch_too_many_fails_the_check_of_counters() {
        let good = summarise(&raw(&[&[1.0]], 1)).unwrap();
        assert!(!checks(&good)[1].failed());
        let changes: [fn(&mut DeviceCounters); 5] = [
            |c| c.graph_launches = 13,
            |c| c.d2h_bytes = 49,
            |c| c.h2d_bytes = 16,
            |c| c.syncs = 1,
            |c| c.generated = 0,
        ];
        for change in changes {
            let mut b = good.clone();
            change(&mut b.decode.counters);
            assert!(checks(&b)[1].failed(), "{:?}", b.decode.counters);
        }
    }

    #[test]
    fn nothing_decoded_or_nothing_timed_is_no_breakdown() {
        let mut none = raw(&[&[1.0]], 1);
        none.gaps_ns.clear();
        assert!(summarise(&none).is_err());
        assert!(summarise(&raw(&[&[]], 1)).is_err());
    }
}
