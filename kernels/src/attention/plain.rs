//! attention / plain: one query after the other in portable Rust.
//!
//!   q  f32 [count][dim]               K, V  f16 or f32, laid out as in `kv.rs`       values  f32 [count][dim]

use half::f16;

use super::kv::TILE;
use super::{Block, KvLayer, KvType, Running, STEP};

pub(super) fn step(kv: &KvLayer, block: &Block<'_>, from: usize, to: usize, running: &mut Running<'_>) {
    let dim = kv.head_dim();
    let key = |i: usize| match kv.kind() {
        KvType::F16 => f16::from_bits(kv.k16()[i]).to_f32(),
        KvType::F32 => kv.k32()[i],
    };
    let value = |i: usize| match kv.kind() {
        KvType::F16 => f16::from_bits(kv.v16()[i]).to_f32(),
        KvType::F32 => kv.v32()[i],
    };
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = [0.0f32; STEP];
    for i in 0..block.count {
        let to = to.min(block.limits[i]);
        if to <= from {
            continue;
        }
        let q = &block.q[i * dim..][..dim];
        let scores = &mut scores[..to - from];
        for (pos, score) in (from..to).zip(scores.iter_mut()) {
            let tile = kv.key_tile(block.kv_head, pos / TILE * TILE) + pos % TILE;
            *score = scale * q.iter().enumerate().map(|(d, q)| q * key(tile + d * TILE)).sum::<f32>();
        }
        let max = scores.iter().copied().fold(running.max[i], f32::max);
        let values = &mut running.values[i * dim..][..dim];
        // Before the first key the maximum is minus infinity, and the factor zero.
        let keep = (running.max[i] - max).exp();
        values.iter_mut().for_each(|v| *v *= keep);
        running.sum[i] *= keep;
        running.max[i] = max;
        for (pos, score) in (from..to).zip(scores.iter()) {
            let p = (score - max).exp();
            running.sum[i] += p;
            let start = kv.value_at(block.kv_head, pos);
            for (d, v) in values.iter_mut().enumerate() {
                *v += p * value(start + d);
            }
        }
    }
}
