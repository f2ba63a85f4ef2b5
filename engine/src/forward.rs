//! The forward pass, written once for `llama`, `qwen2` and `qwen3`, for one token and for batches.
//!
//! Everything it touches is allocated beforehand in [`Scratch`]: a decoded token allocates nothing.

use kernels::cpu::{Act, AttnScratch, Cpu, HeadShape, Proj, RopeAngles, RopeTable};
use variants::Activations;

use crate::kv_cache::KvCache;
use crate::model::{Config, Layer, Model};

/// Tokens that go through the layers together. More read the weights less often; these already bound the time by
/// arithmetic, and their activations fit in the second-level cache.
pub const BATCH: usize = 128;

/// Whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nobody's: only keys and values are.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// The buffers of a forward pass, for batches of up to [`BATCH`] tokens.
#[derive(Debug)]
pub struct Scratch {
    rope: RopeTable,
    angles: RopeAngles,
    attn: AttnScratch,
    act: Act,
    x: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    inner: Act,
    logits: Vec<f32>,
}

impl Scratch {
    /// Buffers for this model.
    pub fn new(model: &Model) -> Scratch {
        let config = &model.config;
        let rope = RopeTable::new(config.rope.dims, f64::from(config.rope.base), model.rope_factors.as_deref());
        let widest = config.hidden.max(config.q_width());
        let layers = model.layers.iter();
        let mut matrices =
            layers.flat_map(|l| [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down]).chain([model.head.as_ref()]);
        let int8 = matrices.any(|w| w.activations() == Activations::A8);
        let act = |k: usize| if int8 { Act::new(BATCH, k) } else { Act::floats(BATCH, k) };
        Scratch {
            angles: RopeAngles::new(&rope, BATCH),
            rope,
            attn: AttnScratch::new(heads(config)),
            act: act(widest),
            x: vec![0.0; BATCH * config.hidden],
            q: vec![0.0; BATCH * config.q_width()],
            k: vec![0.0; BATCH * config.kv_width()],
            v: vec![0.0; BATCH * config.kv_width()],
            mixed: vec![0.0; BATCH * config.q_width()],
            inner: act(config.inter),
            logits: vec![0.0; config.vocab],
        }
    }

    /// The logits that the last pass with [`Wanted::Last`] left, `[vocab]`.
    pub(crate) fn last_logits(&self, vocab: usize) -> &[f32] {
        &self.logits[..vocab]
    }
}

fn heads(config: &Config) -> HeadShape {
    HeadShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}

/// Runs `ids` through the model at positions `pos0..`, writes their keys and values, and returns the logits wanted:
/// none, `[vocab]`, or `[ids, vocab]`.
///
/// Only [`Wanted::All`] may allocate, for the logits of more than one token.
///
/// # Panics
/// Where there are no ids, an id has no embedding, or the cache has no room: the caller checks requests against the
/// context.
pub fn forward<'a>(
    cpu: &Cpu,
    model: &Model,
    kv: &mut KvCache,
    ids: &[u32],
    pos0: usize,
    scratch: &'a mut Scratch,
    wanted: Wanted,
) -> &'a [f32] {
    assert!(!ids.is_empty(), "a forward pass needs a token");
    assert!(pos0 + ids.len() <= kv.context(), "positions {pos0}..{} of {}", pos0 + ids.len(), kv.context());
    let vocab = model.config.vocab;
    let rows = match wanted {
        Wanted::None => 0,
        Wanted::Last => 1,
        Wanted::All => ids.len(),
    };
    if scratch.logits.len() < rows * vocab {
        scratch.logits.resize(rows * vocab, 0.0);
    }
    let last = (ids.len() - 1) / BATCH;
    for (i, batch) in ids.chunks(BATCH).enumerate() {
        let wanted = if wanted == Wanted::Last && i < last { Wanted::None } else { wanted };
        let row = if wanted == Wanted::All { i * BATCH } else { 0 };
        run_batch(cpu, model, kv, batch, pos0 + i * BATCH, scratch, wanted, row * vocab);
    }
    &scratch.logits[..rows * vocab]
}

/// One batch through all layers; its logits go to `logits_at`.
#[allow(clippy::too_many_arguments)] // The state of a pass, each of its own type.
fn run_batch(
    cpu: &Cpu,
    model: &Model,
    kv: &mut KvCache,
    ids: &[u32],
    pos0: usize,
    s: &mut Scratch,
    wanted: Wanted,
    logits_at: usize,
) {
    let config = &model.config;
    let m = ids.len();
    s.angles.fill(&s.rope, pos0, m);
    cpu.embed(&model.embed, ids, &mut s.x[..m * config.hidden]); // [M, hidden]
    let mut rows = m;
    for (i, layer) in model.layers.iter().enumerate() {
        project(cpu, config, layer, s, m);
        cpu.kv_append(kv.layer_mut(i), &s.k[..m * config.kv_width()], &s.v[..m * config.kv_width()], pos0, m);
        if i + 1 == model.layers.len() && wanted != Wanted::All {
            // Beyond the last layer's keys and values only the last token is looked at, if any.
            if wanted == Wanted::None {
                return;
            }
            s.x.copy_within((m - 1) * config.hidden..m * config.hidden, 0);
            s.q.copy_within((m - 1) * config.q_width()..m * config.q_width(), 0);
            rows = 1;
        }
        attend(cpu, config, layer, kv, i, s, pos0 + m - rows, rows);
        feed_forward(cpu, config, layer, s, rows);
    }
    let vocab = config.vocab;
    cpu.rmsnorm_act(&s.x[..rows * config.hidden], &model.out_norm, config.eps, &mut s.act); // [rows, hidden]
    let logits = &mut s.logits[logits_at..][..rows * vocab];
    cpu.matmul(&s.act, &mut [Proj { w: &model.head, bias: None, y: logits, add: false }]); // [rows, vocab]
}

/// Norm, Q, K, V, their biases, head norms and rotation.
fn project(cpu: &Cpu, config: &Config, layer: &Layer, s: &mut Scratch, m: usize) {
    let q = &mut s.q[..m * config.q_width()];
    let k = &mut s.k[..m * config.kv_width()];
    let v = &mut s.v[..m * config.kv_width()];
    cpu.rmsnorm_act(&s.x[..m * config.hidden], &layer.attn_norm, config.eps, &mut s.act); // [M, hidden]
    cpu.matmul(
        &s.act,
        &mut [
            Proj { w: &layer.wq, bias: layer.bq.as_deref(), y: q, add: false }, // [M, n_heads * head_dim]
            Proj { w: &layer.wk, bias: layer.bk.as_deref(), y: k, add: false }, // [M, n_kv_heads * head_dim]
            Proj { w: &layer.wv, bias: layer.bv.as_deref(), y: v, add: false }, // [M, n_kv_heads * head_dim]
        ],
    );
    if let Some(w) = &layer.q_norm {
        cpu.head_norm(q, w, config.eps);
    }
    if let Some(w) = &layer.k_norm {
        cpu.head_norm(k, w, config.eps);
    }
    cpu.rope(q, config.n_heads, config.head_dim, &s.angles, config.rope.pairing);
    cpu.rope(k, config.n_kv_heads, config.head_dim, &s.angles, config.rope.pairing);
}

/// Attention of `rows` tokens from position `pos` on, its projection, and the residual.
#[allow(clippy::too_many_arguments)] // As above.
fn attend(
    cpu: &Cpu,
    config: &Config,
    layer: &Layer,
    kv: &mut KvCache,
    index: usize,
    s: &mut Scratch,
    pos: usize,
    rows: usize,
) {
    let width = config.q_width();
    let mixed = &mut s.mixed[..rows * width];
    let q = &s.q[..rows * width];
    cpu.attention(q, kv.layer_mut(index), pos, rows, heads(config), &mut s.attn, mixed); // [rows, n_heads * head_dim]
    cpu.act(mixed, rows, width, &mut s.act);
    let x = &mut s.x[..rows * config.hidden];
    cpu.matmul(&s.act, &mut [Proj { w: &layer.wo, bias: None, y: x, add: true }]); // [rows, hidden]
}

/// Norm, gate and up, SwiGLU, down, and the residual.
fn feed_forward(cpu: &Cpu, config: &Config, layer: &Layer, s: &mut Scratch, rows: usize) {
    let x = &mut s.x[..rows * config.hidden];
    cpu.rmsnorm_act(x, &layer.ffn_norm, config.eps, &mut s.act); // [rows, hidden]
    cpu.gate_up_swiglu(&s.act, &layer.gate, &layer.up, &mut s.inner); // [rows, inter]
    cpu.matmul(&s.inner, &mut [Proj { w: &layer.down, bias: None, y: x, add: true }]); // [rows, hidden]
}
