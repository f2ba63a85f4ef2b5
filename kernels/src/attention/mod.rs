//! Causal attention with grouped queries over a KV cache, for one token or a batch.
//!
//! All query heads that share a key head are worked on together, up to [`MAX_QUERIES`] at a time, so that each key and
//! value is loaded once for all of them. A *block* is such a set of queries: `(token, head)` pairs in that order. Keys
//! are taken [`STEP`] at a time with a running maximum and sum.
//!
//! For one token the keys are also split into spans, each with a partial result of its own; spans merge in their order.
//! Where spans begin depends on the length alone, so the result is the same bit for bit on any number of threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kv;
mod plain;

use variants::Isa;

pub use kv::{KvLayer, KvType};

use crate::cpu::{Cpu, Spread};

/// Queries worked on together.
pub(crate) const MAX_QUERIES: usize = 8;
/// Keys scored before their values are added: the scores of a block fit in the first-level cache.
pub(crate) const STEP: usize = 128;
/// The longest head.
pub(crate) const MAX_HEAD_DIM: usize = 256;
/// Keys times heads from which one token's attention is worth a phase of the pool.
const WORTH_A_PHASE: usize = 256;
/// A span of one token's keys is at least this long, and there are at most [`MAX_SPANS`].
const MIN_SPAN: usize = 64;
const MAX_SPANS: usize = 32;

/// How many heads of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl HeadShape {
    /// Query heads that share a key head.
    pub fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// Partial results of one token's spans.
#[derive(Debug)]
pub struct AttnScratch {
    partials: Vec<f32>,
}

impl AttnScratch {
    /// Room for heads of this shape at any length.
    pub fn new(heads: HeadShape) -> AttnScratch {
        AttnScratch { partials: vec![0.0; MAX_SPANS * heads.n_heads * (heads.head_dim + 2)] }
    }
}

/// The queries of a block with the keys that each may see, and where their running results lie.
pub(crate) struct Block<'a> {
    /// The key head that all share.
    pub kv_head: usize,
    /// `[count][head_dim]`.
    pub q: &'a [f32],
    /// How many, at most [`MAX_QUERIES`].
    pub count: usize,
    /// For each query, the keys before this one are seen.
    pub limits: [usize; MAX_QUERIES],
}

/// The running results of a block: weighted values `[count][head_dim]`, and each query's maximum and sum.
pub(crate) struct Running<'a> {
    /// `[count][head_dim]`.
    pub values: &'a mut [f32],
    /// The largest score so far.
    pub max: [f32; MAX_QUERIES],
    /// The sum of exp(score - max) so far.
    pub sum: [f32; MAX_QUERIES],
}

/// Adds the keys `from..to` (at most [`STEP`]) to the running results of a block.
type StepFn = unsafe fn(&KvLayer, &Block<'_>, usize, usize, &mut Running<'_>);

/// The attention kernel of one instruction set level.
#[derive(Clone, Copy)]
pub(crate) struct AttentionKernels {
    step: StepFn,
}

impl AttentionKernels {
    /// The kernel of a level that this machine has.
    pub(crate) fn of(isa: Isa) -> AttentionKernels {
        assert!(isa <= Isa::detect(), "this machine does not run {isa}");
        AttentionKernels {
            step: match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => avx512::step,
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::step,
                _ => plain::step,
            },
        }
    }

    /// Runs a block over the keys `from..to`.
    fn run(&self, kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
        running.values.fill(0.0);
        running.max = [f32::NEG_INFINITY; MAX_QUERIES];
        running.sum = [0.0; MAX_QUERIES];
        for start in (from..to).step_by(STEP) {
            // SAFETY: `of` checked that the machine has the instruction set; the callers below check the shapes and that
            // the cache holds every key below `to`.
            unsafe { (self.step)(kv, block, start, to.min(start + STEP), running) };
        }
    }
}

impl Cpu {
    /// `out[t, h] = softmax(q[t, h] · K / sqrt(head_dim)) V` over the keys `0..=pos0 + t`.
    ///
    /// `q` and `out` are `[M, n_heads, head_dim]`; the cache already holds the keys of these tokens.
    ///
    /// # Panics
    /// Where shapes disagree or the cache has no such positions.
    #[allow(clippy::too_many_arguments)] // The op's inputs, each of its own type.
    pub fn attention(
        &self,
        q: &[f32],
        kv: &KvLayer,
        pos0: usize,
        m: usize,
        heads: HeadShape,
        scratch: &mut AttnScratch,
        out: &mut [f32],
    ) {
        self.attention_by(self.attention_kernels(), q, kv, pos0, m, heads, scratch, out);
    }

    /// As [`Cpu::attention`], with kernels of the caller's choice.
    #[allow(clippy::too_many_arguments)] // As above.
    pub(crate) fn attention_by(
        &self,
        kernels: &AttentionKernels,
        q: &[f32],
        kv: &KvLayer,
        pos0: usize,
        m: usize,
        heads: HeadShape,
        scratch: &mut AttnScratch,
        out: &mut [f32],
    ) {
        let width = heads.n_heads * heads.head_dim;
        assert!(q.len() == m * width && out.len() == m * width, "{m} rows of {width}");
        assert!(heads.n_kv_heads == kv.n_kv_heads() && heads.head_dim == kv.head_dim(), "heads of the cache");
        assert!(heads.n_heads.is_multiple_of(heads.n_kv_heads), "whole groups of heads");
        assert!(pos0 + m <= kv.capacity(), "positions {pos0}..{} of {}", pos0 + m, kv.capacity());
        if m == 1 {
            self.attend_one(kernels, q, kv, pos0 + 1, heads, scratch, out);
        } else {
            self.attend_batch(kernels, q, kv, pos0, m, heads, out);
        }
    }

    /// One token: spans of keys times key heads, then a merge.
    #[allow(clippy::too_many_arguments)] // As above.
    fn attend_one(
        &self,
        kernels: &AttentionKernels,
        q: &[f32],
        kv: &KvLayer,
        len: usize,
        heads: HeadShape,
        scratch: &mut AttnScratch,
        out: &mut [f32],
    ) {
        let dim = heads.head_dim;
        let group = heads.group();
        let span = MIN_SPAN.max(len.div_ceil(MAX_SPANS).next_multiple_of(16));
        let spans = len.div_ceil(span);
        let blocks = group.div_ceil(MAX_QUERIES);
        let record = dim + 2;
        let partials = Spread::new(&mut scratch.partials);
        // An item is a block of queries of one key head over one span.
        let item = |item: usize| {
            let (at, kv_head) = (item / (heads.n_kv_heads * blocks), item / blocks % heads.n_kv_heads);
            let first = kv_head * group + item % blocks * MAX_QUERIES;
            let count = MAX_QUERIES.min((kv_head + 1) * group - first);
            let block = Block { kv_head, q: &q[first * dim..][..count * dim], count, limits: [len; MAX_QUERIES] };
            // SAFETY: the record of a span and block is written by one item alone.
            let partial = unsafe { partials.part((at * heads.n_heads + first) * record, count * record) };
            let (values, ends) = partial.split_at_mut(count * dim);
            let mut running = Running { values, max: [0.0; MAX_QUERIES], sum: [0.0; MAX_QUERIES] };
            kernels.run(kv, &block, at * span, len.min((at + 1) * span), &mut running);
            for (i, end) in ends.chunks_exact_mut(2).enumerate() {
                end.copy_from_slice(&[running.max[i], running.sum[i]]);
            }
        };
        let per_span = heads.n_kv_heads * blocks;
        if len * heads.n_heads < WORTH_A_PHASE || self.threads() == 1 {
            (0..spans * per_span).for_each(item);
        } else {
            // Threads share the keys, not the items, as the last span may be a short one. An item belongs to the thread in
            // whose part of all keys its middle lies.
            let threads = self.threads();
            let keys_in = |at: usize| span.min(len - at * span);
            let middle =
                |i: usize| (i / per_span * span * per_span) * 2 + (i % per_span * 2 + 1) * keys_in(i / per_span);
            let total = 2 * len * per_span;
            self.pool().run(&|thread| {
                let part = total * thread / threads..total * (thread + 1) / threads;
                (0..spans * per_span).filter(|&i| part.contains(&middle(i))).for_each(item);
            });
        }
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            // The block of the head, and its place within: a record is the values of all its heads, then their ends.
            let (kv_head, within) = (head / group, head % group);
            let first = kv_head * group + within / MAX_QUERIES * MAX_QUERIES;
            let count = MAX_QUERIES.min((kv_head + 1) * group - first);
            let i = head - first;
            let partial = |at: usize| {
                let record = &scratch.partials[(at * heads.n_heads + first) * record..][..count * record];
                let end = &record[count * dim + 2 * i..][..2];
                (&record[i * dim..][..dim], end[0], end[1])
            };
            let max = (0..spans).map(|at| partial(at).1).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            out.fill(0.0);
            for at in 0..spans {
                let (values, partial_max, partial_sum) = partial(at);
                let weight = (partial_max - max).exp();
                sum += weight * partial_sum;
                for (o, v) in out.iter_mut().zip(values) {
                    *o += weight * v;
                }
            }
            let over = 1.0 / sum;
            out.iter_mut().for_each(|o| *o *= over);
        }
    }

    /// A batch: blocks of queries, each over all its keys.
    #[allow(clippy::too_many_arguments)] // As above.
    fn attend_batch(
        &self,
        kernels: &AttentionKernels,
        q: &[f32],
        kv: &KvLayer,
        pos0: usize,
        m: usize,
        heads: HeadShape,
        out: &mut [f32],
    ) {
        let dim = heads.head_dim;
        let group = heads.group();
        let queries = m * group;
        let blocks = queries.div_ceil(MAX_QUERIES);
        let threads = self.threads();
        let out = Spread::new(out);
        // Later queries see more keys, so blocks are dealt out in turn instead of in runs.
        self.pool().run(&|thread| {
            let mut gathered = [0.0; MAX_QUERIES * MAX_HEAD_DIM];
            let mut values = [0.0; MAX_QUERIES * MAX_HEAD_DIM];
            for item in (thread..heads.n_kv_heads * blocks).step_by(threads) {
                let (at, kv_head) = (item / heads.n_kv_heads, item % heads.n_kv_heads);
                let first = at * MAX_QUERIES;
                let count = MAX_QUERIES.min(queries - first);
                let mut limits = [0; MAX_QUERIES];
                // Where query `i` of the block lies in `q` and `out`.
                let place = |i: usize| {
                    let (token, head) = ((first + i) / group, kv_head * group + (first + i) % group);
                    (token, (token * heads.n_heads + head) * dim)
                };
                for i in 0..count {
                    let (token, start) = place(i);
                    limits[i] = pos0 + token + 1;
                    gathered[i * dim..][..dim].copy_from_slice(&q[start..][..dim]);
                }
                let block = Block { kv_head, q: &gathered[..count * dim], count, limits };
                let values = &mut values[..count * dim];
                let mut running = Running { values, max: [0.0; MAX_QUERIES], sum: [0.0; MAX_QUERIES] };
                kernels.run(kv, &block, 0, limits[count - 1], &mut running);
                for i in 0..count {
                    // SAFETY: the output of a token and head is written by one item alone.
                    let out = unsafe { out.part(place(i).1, dim) };
                    let over = 1.0 / running.sum[i];
                    for (o, v) in out.iter_mut().zip(&running.values[i * dim..][..dim]) {
                        *o = v * over;
                    }
                }
            }
        });
    }
}
