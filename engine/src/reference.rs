//! The forward pass in f64 on decoded weights: slow, plain, and the judge of the fast one.
//!
//! It reads the file by itself and shares nothing with the fast path but the metadata reader and the block decoder, which
//! have tests of their own. Whole sequences at once, no cache.

use kernels::quant;

use crate::gguf::Gguf;
use crate::model::{Architecture, Config, LoadError};

/// A model decoded to floats.
#[derive(Debug)]
pub struct Reference {
    config: Config,
    embed: Dense,
    layers: Vec<DenseLayer>,
    out_norm: Vec<f32>,
    head: Option<Dense>,
    rope_factors: Option<Vec<f32>>,
}

/// Rows of K weights.
#[derive(Debug)]
struct Dense {
    k: usize,
    w: Vec<f32>,
}

#[derive(Debug)]
struct DenseLayer {
    attn_norm: Vec<f32>,
    wq: Dense,
    wk: Dense,
    wv: Dense,
    wo: Dense,
    bq: Option<Vec<f32>>,
    bk: Option<Vec<f32>>,
    bv: Option<Vec<f32>>,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    gate: Dense,
    up: Dense,
    down: Dense,
}

impl Reference {
    /// Decodes every tensor of a file.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is refused or a tensor is missing. Shapes are not checked here.
    pub fn load(gguf: &Gguf) -> Result<Reference, LoadError> {
        let config = Config::from_gguf(gguf)?;
        let optional = |name: &str| {
            gguf.tensor(name).map(|info| {
                let mut w = vec![0.0; info.len()];
                quant::dequantize_row(info.dtype, gguf.data(info), &mut w);
                Dense { k: info.k(), w }
            })
        };
        let dense = |name: &str| optional(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.to_owned() });
        let mut layers = Vec::new();
        for i in 0..config.layers {
            let of = |name: &str| dense(&format!("blk.{i}.{name}"));
            let maybe = |name: &str| optional(&format!("blk.{i}.{name}")).map(|d| d.w);
            layers.push(DenseLayer {
                attn_norm: of("attn_norm.weight")?.w,
                wq: of("attn_q.weight")?,
                wk: of("attn_k.weight")?,
                wv: of("attn_v.weight")?,
                wo: of("attn_output.weight")?,
                bq: maybe("attn_q.bias"),
                bk: maybe("attn_k.bias"),
                bv: maybe("attn_v.bias"),
                q_norm: maybe("attn_q_norm.weight"),
                k_norm: maybe("attn_k_norm.weight"),
                ffn_norm: of("ffn_norm.weight")?.w,
                gate: of("ffn_gate.weight")?,
                up: of("ffn_up.weight")?,
                down: of("ffn_down.weight")?,
            });
        }
        Ok(Reference {
            embed: dense("token_embd.weight")?,
            layers,
            out_norm: dense("output_norm.weight")?.w,
            head: optional("output.weight"),
            rope_factors: optional("rope_freqs.weight").map(|d| d.w),
            config,
        })
    }

    /// The logits after every token of a sequence, `[M][vocab]`.
    pub fn logits(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let c = &self.config;
        let mut x: Vec<Vec<f64>> = ids.iter().map(|&id| self.embed.row(id as usize)).collect(); // [M][hidden]
        for layer in &self.layers {
            let h: Vec<Vec<f64>> = x.iter().map(|x| norm(x, &layer.attn_norm, c.eps)).collect();
            let heads = |w: &Dense, b: &Option<Vec<f32>>, norm_w: &Option<Vec<f32>>, turn: bool| -> Vec<Vec<f64>> {
                let project = |(pos, h): (usize, &Vec<f64>)| {
                    let mut y = w.times(h);
                    if let Some(b) = b {
                        y.iter_mut().zip(b).for_each(|(y, &b)| *y += f64::from(b));
                    }
                    for head in y.chunks_mut(c.head_dim) {
                        if let Some(w) = norm_w {
                            head.copy_from_slice(&norm(head, w, c.eps));
                        }
                        if turn {
                            self.rotate(head, pos);
                        }
                    }
                    y
                };
                h.iter().enumerate().map(project).collect()
            };
            let q = heads(&layer.wq, &layer.bq, &layer.q_norm, true); // [M][n_heads * head_dim]
            let k = heads(&layer.wk, &layer.bk, &layer.k_norm, true); // [M][n_kv_heads * head_dim]
            let v = heads(&layer.wv, &layer.bv, &None, false);
            for pos in 0..x.len() {
                let attended = self.attend(&q[pos], &k[..=pos], &v[..=pos]);
                add(&mut x[pos], &layer.wo.times(&attended));
                let h = norm(&x[pos], &layer.ffn_norm, c.eps);
                let gated: Vec<f64> =
                    layer.gate.times(&h).iter().zip(layer.up.times(&h)).map(|(&g, u)| silu(g) * u).collect();
                add(&mut x[pos], &layer.down.times(&gated));
            }
        }
        let head = self.head.as_ref().unwrap_or(&self.embed);
        x.iter().map(|x| head.times(&norm(x, &self.out_norm, c.eps))).collect()
    }

    /// Attention of one position to itself and all before it.
    fn attend(&self, q: &[f64], k: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<f64> {
        let d = self.config.head_dim;
        let share = self.config.n_heads / self.config.n_kv_heads;
        let mut out = Vec::with_capacity(q.len());
        for (head, q) in q.chunks(d).enumerate() {
            let at = head / share * d;
            let scores: Vec<f64> = k.iter().map(|k| dot(q, &k[at..at + d]) / (d as f64).sqrt()).collect();
            let max = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..d).map(|i| weights.iter().zip(v).map(|(w, v)| w * v[at + i]).sum::<f64>() / sum));
        }
        out
    }

    /// Turns one head by its position.
    fn rotate(&self, head: &mut [f64], pos: usize) {
        let rope = &self.config.rope;
        let half = rope.dims / 2;
        for i in 0..half {
            let factor = self.rope_factors.as_ref().map_or(1.0, |f| f64::from(f[i])) * f64::from(rope.linear_factor);
            let angle = pos as f64 / factor / f64::from(rope.base).powf(i as f64 / half as f64);
            let (a, b) = match self.config.architecture {
                Architecture::Llama => (2 * i, 2 * i + 1),
                Architecture::Qwen2 | Architecture::Qwen3 => (i, i + half),
            };
            let (x, y) = (head[a], head[b]);
            head[a] = x * angle.cos() - y * angle.sin();
            head[b] = x * angle.sin() + y * angle.cos();
        }
    }
}

impl Dense {
    fn row(&self, row: usize) -> Vec<f64> {
        self.w[row * self.k..][..self.k].iter().map(|&w| f64::from(w)).collect()
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        self.w.chunks_exact(self.k).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

fn norm(x: &[f64], w: &[f32], eps: f32) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter().zip(w).map(|(x, &w)| x * scale * f64::from(w)).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
