//! The steps of a token, summed by op and by op and shape.

use harness_spec::record::{Breakdown, BreakdownStep, RunRecord};
use serde::Serialize;

use super::facts::Fact;
use super::format;

/// The breakdown at one depth.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BreakdownView {
    /// Tokens of context.
    pub depth: String,
    /// Times of tokens and how they add up.
    pub facts: Vec<Fact>,
    /// Sums by op.
    pub ops: Vec<SumRow>,
    /// Sums by op and shape.
    pub shapes: Vec<SumRow>,
}

/// A sum over steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SumRow {
    /// The op.
    pub op: String,
    /// Its shape; empty where the sum is over all of them.
    pub shape: String,
    /// The kernel; empty where several ran.
    pub variant: String,
    /// Steps.
    pub count: usize,
    /// Microseconds of one.
    pub each: String,
    /// Microseconds of all.
    pub total: String,
    /// Share of the token.
    pub share: String,
    /// Achieved rate, GB/s.
    pub rate: String,
    /// The rate's share of the read ceiling.
    pub of_ceiling: String,
}

/// A sum in numbers.
pub(crate) struct Sum<'a> {
    /// Its first step.
    pub first: &'a BreakdownStep,
    /// Steps.
    pub count: usize,
    /// Time, ns.
    pub cost_ns: f64,
    /// Bytes; `None` where a step has no byte model.
    pub bytes: Option<u64>,
}

/// Sums of steps that are `same`, in the order of the token.
pub(crate) fn sums(b: &Breakdown, same: impl Fn(&BreakdownStep, &BreakdownStep) -> bool) -> Vec<Sum<'_>> {
    let mut out: Vec<Sum<'_>> = Vec::new();
    for step in &b.steps {
        match out.iter_mut().find(|sum| same(sum.first, step)) {
            Some(sum) => {
                sum.count += 1;
                sum.cost_ns += step.cost_ns;
                sum.bytes = sum.bytes.zip(step.bytes).map(|(a, b)| a + b);
            }
            None => out.push(Sum { first: step, count: 1, cost_ns: step.cost_ns, bytes: step.bytes }),
        }
    }
    out
}

/// Sums by op.
pub(crate) fn by_op(b: &Breakdown) -> Vec<Sum<'_>> {
    sums(b, |a, b| a.op == b.op)
}

/// The breakdowns of a record.
pub(crate) fn views(record: &RunRecord) -> Vec<BreakdownView> {
    record.breakdowns.iter().map(|b| view(record, b)).collect()
}

fn view(record: &RunRecord, b: &Breakdown) -> BreakdownView {
    let ceiling = record.ceiling.as_ref().map(|c| c.read_gb_per_s);
    let of_one_shape =
        |a: &BreakdownStep, b: &BreakdownStep| a.op == b.op && a.shape == b.shape && a.variant == b.variant;
    BreakdownView {
        depth: format::grouped(b.depth),
        facts: facts(b),
        ops: by_op(b).iter().map(|sum| row(b, sum, false, ceiling)).collect(),
        shapes: sums(b, of_one_shape).iter().map(|sum| row(b, sum, true, ceiling)).collect(),
    }
}

fn row(b: &Breakdown, sum: &Sum<'_>, with_shape: bool, ceiling: Option<f64>) -> SumRow {
    let us = |ns: f64| format!("{:.2}", ns / 1e3);
    // A rate over a cost of nothing or less would be no rate.
    let rate = sum.bytes.filter(|_| sum.cost_ns > 0.0).map(|bytes| bytes as f64 / sum.cost_ns);
    let text = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| format::NONE.to_owned(), show);
    SumRow {
        op: sum.first.op.clone(),
        shape: if with_shape { sum.first.shape.to_string() } else { String::new() },
        variant: if with_shape { sum.first.variant.short() } else { String::new() },
        count: sum.count,
        each: us(sum.cost_ns / sum.count as f64),
        total: us(sum.cost_ns),
        share: format::percent(sum.cost_ns / b.sum_ns),
        rate: text(rate, format::number),
        of_ceiling: text(rate.zip(ceiling).map(|(rate, ceiling)| rate / ceiling), format::percent),
    }
}

/// Times of tokens, and whether the steps add up to them.
fn facts(b: &Breakdown) -> Vec<Fact> {
    let us = |ns: f64| format!("{:.2} us", ns / 1e3);
    let d = &b.decode;
    let fact = |name: &str, value: String, why: String| Fact { name: name.to_owned(), value, why };
    let tail = d.itl_p99_ns.map_or_else(
        || fact("token to token, p99", format::NONE.to_owned(), format!("{} values, 1000 are needed", d.tokens())),
        |p99| {
            let ratio = format!("{:.3} of p50", p99 / d.itl_p50_ns);
            fact("token to token, p99", us(p99), format!("{ratio}; longest {}", us(d.itl_max_ns)))
        },
    );
    let tokens = d.counters.generated.max(1) as f64;
    vec![
        fact(
            "sum of the steps",
            us(b.sum_ns),
            format!("{} steps at position {}, medians of {} rounds", b.steps.len(), b.position, b.rounds),
        ),
        fact(
            "wall time of a greedy token",
            us(d.wall_ns),
            format!("in the engine's own process: {} windows of {} tokens from depth {}", d.windows, d.window, b.depth),
        ),
        fact("sum ÷ wall time", format!("{:.4}", b.sum_ns / d.wall_ns), String::new()),
        fact("decode in process", format!("{} tok/s", format::number(1e9 / d.wall_ns)), String::new()),
        fact("token to token, p50", us(d.itl_p50_ns), format!("{} tokens", d.tokens())),
        tail,
        fact(
            "a token, by the engine's counters",
            format!(
                "{:.2} graphs, {:.2} bytes back",
                d.counters.graph_launches as f64 / tokens,
                d.counters.d2h_bytes as f64 / tokens
            ),
            format!(
                "{:.2} bytes sent, {:.2} waits in the driver",
                d.counters.h2d_bytes as f64 / tokens,
                d.counters.syncs as f64 / tokens
            ),
        ),
        fact(
            "steps that may start early",
            b.programmatic_edges.map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
            "programmatic edges of the graph".to_owned(),
        ),
    ]
}
