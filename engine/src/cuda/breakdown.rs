//! What each step of a token costs where steps overlap as in use, by differences of prefixes (SPEC.md H12).
//!
//! A mark between two steps takes microseconds and keeps the second of them from starting early, so that marked steps add
//! up to more than the token that they make. Here nothing stands between steps. The first k steps are captured as a graph
//! of their own, with the same programmatic edges, for every k; step k costs what the first k steps take more than the first
//! k - 1. These costs add up to the time of the whole graph. What a step hides under its neighbours is not charged to it,
//! and one that lets the step ahead end sooner may cost less than nothing.
//!
//! - Every prefix is timed behind a whole token, so that it finds the caches as a token leaves them, and is queued while
//!   that token runs, so that no latency of a launch is in its time.
//! - Only the last step of a token writes token and position: a shorter prefix changes nothing but activations, and keys
//!   and values of a position that are written again. Token and position are set anew before each.
//! - The prefixes take turns, in another order in each round, so that drift falls on all of them.

use std::time::{Duration, Instant};

use harness_spec::{Shape, VariantId};
use kernels::cuda::CudaError;
use kernels::cuda::driver::{Event, Graph};
use kernels::cuda::exec::{Exec, Program, Step};
use kernels::op;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use variants::registry;

use super::{Counters, CudaModel};

/// How a token is taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tokens of context at which decoding begins; at least 1.
    pub depth: usize,
    /// Tokens that are decoded in a row before the context starts again at `depth`.
    pub window: usize,
    /// Windows.
    pub windows: usize,
    /// Most times that each prefix is run.
    pub rounds: usize,
    /// Time after which no further round begins, [`LEAST_ROUNDS`] aside.
    pub budget: Duration,
}

/// Rounds that are run whatever they take: fewer have no median worth the name.
pub const LEAST_ROUNDS: usize = 5;

/// One step and its prefix.
#[derive(Clone, Debug)]
pub struct TimedStep {
    /// The op.
    pub op: String,
    /// The shape by which the variant was chosen.
    pub key: Shape,
    /// The variant.
    pub variant: VariantId,
    /// Bytes that the op must move at this length, where it has a byte model.
    pub bytes: Option<u64>,
    /// Nanoseconds of the graph that ends with this step, one entry a round.
    pub prefix_nanos: Vec<f64>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Position of the token that was taken apart.
    pub position: usize,
    /// Its steps.
    pub steps: Vec<TimedStep>,
    /// Nanoseconds from one greedy token to the next, a list for each window.
    pub gaps: Vec<Vec<u64>>,
    /// What was counted over the tokens of the windows alone.
    pub counters: Counters,
}

/// Decodes at a depth, takes the token in the middle of the window apart, and decodes again: the windows lie on both sides
/// of what they are compared with.
///
/// # Errors
/// The driver's error.
///
/// # Panics
/// Where depth and window do not fit the context.
pub fn measure(model: &mut CudaModel, plan: &Plan) -> Result<Measured, CudaError> {
    let mut gaps = Vec::with_capacity(plan.windows);
    let mut counters = Counters::default();
    // The first window still pays for the clock ramp.
    decode(model, plan, 1, &mut Vec::new(), &mut Counters::default())?;
    decode(model, plan, plan.windows.div_ceil(2), &mut gaps, &mut counters)?;
    let position = plan.depth + plan.window / 2;
    let steps = model.prefixes(position, plan.rounds, plan.budget)?;
    decode(model, plan, plan.windows / 2, &mut gaps, &mut counters)?;
    Ok(Measured { position, steps, gaps, counters })
}

/// Windows of greedy tokens.
fn decode(
    model: &mut CudaModel,
    plan: &Plan,
    windows: usize,
    gaps: &mut Vec<Vec<u64>>,
    counted: &mut Counters,
) -> Result<(), CudaError> {
    let vocab = model.vocab();
    let ids: Vec<u32> = (0..plan.depth).map(|i| (i * 7919 % vocab) as u32).collect();
    model.feed(&ids, 0)?;
    for _ in 0..windows {
        // What lies before the last token of the prompt is in the cache already.
        model.feed(&ids[plan.depth - 1..], plan.depth - 1)?;
        let ahead = model.counters();
        model.next_greedy(true)?;
        // That has queued the window's first token, and has brought back the one before it.
        let Counters { tokens, graph_launches, .. } = ahead;
        let before = Counters { tokens, graph_launches, ..model.counters() };
        let mut of_window = Vec::with_capacity(plan.window);
        let mut then = Instant::now();
        for i in 0..plan.window {
            model.next_greedy(i + 1 < plan.window)?;
            let now = Instant::now();
            of_window.push(u64::try_from((now - then).as_nanos()).unwrap_or(u64::MAX));
            then = now;
        }
        counted.add(&model.counters().since(&before));
        gaps.push(of_window);
    }
    Ok(())
}

/// Times every prefix of a token's program. `restore` sets token and position as every prefix finds them, with `keys` keys
/// in the cache once the token is appended.
pub(super) fn prefixes(
    exec: &Exec,
    program: &Program,
    keys: usize,
    rounds: usize,
    budget: Duration,
    restore: &dyn Fn() -> Result<(), CudaError>,
) -> Result<Vec<TimedStep>, CudaError> {
    let stream = exec.stream();
    let steps = program.steps();
    let graphs = (1..=steps.len())
        .map(|count| Graph::capture(stream, |stream| program.run_first(count, stream, exec.overlap())))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(whole) = graphs.last() else { return Ok(Vec::new()) };
    let mut timed: Vec<TimedStep> = steps.iter().map(|step| untimed(step, keys)).collect();
    let (begin, end) = (Event::new(exec.device())?, Event::new(exec.device())?);
    let mut order: Vec<usize> = (0..graphs.len()).collect();
    let mut draws = ChaCha8Rng::seed_from_u64(0);
    let started = Instant::now();
    for round in 0..=rounds.max(LEAST_ROUNDS) {
        if round > LEAST_ROUNDS && started.elapsed() > budget {
            break;
        }
        order.shuffle(&mut draws);
        for &i in &order {
            restore()?;
            whole.launch(stream)?;
            begin.record(stream)?;
            graphs[i].launch(stream)?;
            end.record(stream)?;
            stream.wait(|| format!("timing the first {} steps of a token", i + 1))?;
            let nanos = begin.until(&end)?;
            // The first round sends graphs to the device and fills caches.
            if round > 0 {
                timed[i].prefix_nanos.push(nanos);
            }
        }
    }
    Ok(timed)
}

fn untimed(step: &Step, keys: usize) -> TimedStep {
    TimedStep {
        op: step.op().to_owned(),
        key: step.key().clone(),
        variant: step.variant().clone(),
        bytes: bytes(step.op(), step.key(), step.variant(), keys),
        prefix_nanos: Vec::new(),
    }
}

/// Bytes that an op must move for a token that sees `keys` keys. The length in the key of an op on a cache is a fixed one:
/// it chooses the kernel and says nothing of this token.
fn bytes(name: &str, key: &Shape, variant: &VariantId, keys: usize) -> Option<u64> {
    let (_, spec) = registry().find(variant)?;
    let mut shape = key.clone();
    if let Some(len) = shape.0.get_mut("LEN") {
        *len = keys as u64;
    }
    if let Some(room) = shape.0.get_mut("MAX_LEN") {
        *room = (*room).max(keys as u64);
    }
    Some(op::op(name)?.bytes(&shape, spec).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant_of(op: &str) -> VariantId {
        let kernels = &registry().space(op).unwrap().kernels;
        kernels.iter().find(|k| k.backend == variants::Backend::Cuda).unwrap().default_variant()
    }

    #[test]
    fn attention_moves_more_bytes_at_a_greater_depth_and_a_product_the_same() {
        let attention = Shape::of([
            ("HEADS", 9),
            ("KV_HEADS", 3),
            ("DIM", 64),
            ("LEN", 512),
            ("MAX_LEN", 4096),
            ("KV", 16),
            ("OUT", 8),
        ]);
        let of = |op: &str, shape: &Shape, keys| bytes(op, shape, &variant_of(op), keys).unwrap();
        let grown = of("attn_token", &attention, 8193) - of("attn_token", &attention, 4097);
        assert_eq!(grown, 4096 * 2 * 3 * 64 * 2, "keys and values of 4096 positions in 16 bits");
        let matrix = Shape::of([("N", 576), ("K", 1536)]);
        assert_eq!(of("gemv_add_q4_0", &matrix, 10), of("gemv_add_q4_0", &matrix, 10_000));
        assert!(of("gemv_add_q4_0", &matrix, 10) > 576 * 1536 / 2);
    }

    #[test]
    fn counters_of_a_window_are_what_came_on_top() {
        let mut sum = Counters { tokens: 1, d2h_bytes: 4, ..Counters::default() };
        let before = Counters { tokens: 10, graph_launches: 7, d2h_bytes: 100, ..Counters::default() };
        let after = Counters { tokens: 13, graph_launches: 10, d2h_bytes: 112, ..before };
        sum.add(&after.since(&before));
        assert_eq!((sum.tokens, sum.graph_launches, sum.d2h_bytes, sum.syncs), (4, 3, 16, 0));
    }
}
