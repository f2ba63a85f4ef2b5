//! Ops on whole rows: embedding look-up, norms, rounding, rotation, the KV cache and the choice of a token.

use crate::norm::NormKernels;

use super::{Act, Cpu, KvLayer, Matrix, Pairing, RopeAngles, Spread};

/// Rows times columns from which a row-wise op is worth a phase of the pool.
pub(super) const WORTH_A_PHASE: usize = 1 << 14;

impl Cpu {
    /// Looks up the rows `ids` of an embedding table: `out` is `[M, K]`.
    ///
    /// # Panics
    /// Where an id has no row, or `out` is not M rows.
    pub fn embed(&self, table: &Matrix, ids: &[u32], out: &mut [f32]) {
        let k = table.k();
        assert_eq!(out.len(), ids.len() * k, "room for one row of each id");
        let out = Spread::new(out);
        self.for_each(ids.len(), ids.len() * k >= WORTH_A_PHASE, &|i| {
            // SAFETY: row `i` is written by one call alone.
            table.dequantize_row(ids[i] as usize, unsafe { out.part(i * k, k) });
        });
    }

    /// RMS norm of the rows of `x`, `[M, K]` with K the length of `w`.
    ///
    /// # Panics
    /// Where `x` is no whole number of rows, or `out` is of another size.
    pub fn rmsnorm(&self, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        self.rmsnorm_by(self.norm(), x, w, eps, out);
    }

    /// As [`Cpu::rmsnorm`], with kernels of the caller's choice.
    pub(crate) fn rmsnorm_by(&self, kernels: &NormKernels, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        let k = w.len();
        assert!(x.len() == out.len() && x.len().is_multiple_of(k), "whole rows of {k}");
        let out = Spread::new(out);
        self.for_each(x.len() / k, x.len() >= WORTH_A_PHASE, &|j| {
            // SAFETY: row `j` is written by one call alone.
            kernels.rmsnorm(&x[j * k..][..k], w, eps, unsafe { out.part(j * k, k) });
        });
    }

    /// RMS norm of the rows of `x`, prepared for a product.
    ///
    /// # Panics
    /// Where `x` is no whole number of rows or `act` has no room for them.
    pub fn rmsnorm_act(&self, x: &[f32], w: &[f32], eps: f32, act: &mut Act) {
        let k = w.len();
        assert!(x.len().is_multiple_of(k), "whole rows of {k}");
        let m = x.len() / k;
        let rows = act.rows(m, k);
        self.for_each(m, x.len() >= WORTH_A_PHASE, &|j| {
            // SAFETY: row `j` is below `m` and taken by one call alone; `act` is borrowed for this whole function.
            let (row, quant) = unsafe { rows.row(j) };
            self.norm().rmsnorm(&x[j * k..][..k], w, eps, row);
            if let Some(mut quant) = quant {
                self.norm().quantize(row, &mut quant);
            }
        });
    }

    /// Prepares `m` rows of `k` activations for a product.
    ///
    /// # Panics
    /// Where `x` is not `m` rows or `act` has no room for them.
    pub fn act(&self, x: &[f32], m: usize, k: usize, act: &mut Act) {
        self.act_by(self.norm(), x, m, k, act);
    }

    /// As [`Cpu::act`], with kernels of the caller's choice.
    pub(crate) fn act_by(&self, kernels: &NormKernels, x: &[f32], m: usize, k: usize, act: &mut Act) {
        assert_eq!(x.len(), m * k, "{m} rows of {k}");
        let rows = act.rows(m, k);
        self.for_each(m, x.len() >= WORTH_A_PHASE, &|j| {
            // SAFETY: row `j` is below `m` and taken by one call alone; `act` is borrowed for this whole function.
            let (row, quant) = unsafe { rows.row(j) };
            row.copy_from_slice(&x[j * k..][..k]);
            if let Some(mut quant) = quant {
                kernels.quantize(row, &mut quant);
            }
        });
    }

    /// RMS norm of every head by itself, in place: `x` is `[M, heads, head_dim]`, `w` is `[head_dim]`.
    ///
    /// # Panics
    /// Where `x` is no whole number of heads, or a head is longer than 512.
    pub fn head_norm(&self, x: &mut [f32], w: &[f32], eps: f32) {
        const MOST: usize = 512;
        let dim = w.len();
        assert!(dim <= MOST && x.len().is_multiple_of(dim), "whole heads of at most {MOST}, got {dim}");
        let (heads, work) = (x.len() / dim, x.len());
        let x = Spread::new(x);
        self.for_each(heads, work >= WORTH_A_PHASE, &|h| {
            // SAFETY: head `h` is written by one call alone.
            let head = unsafe { x.part(h * dim, dim) };
            let mut before = [0.0; MOST];
            before[..dim].copy_from_slice(head);
            self.norm().rmsnorm(&before[..dim], w, eps, head);
        });
    }

    /// Rotates the heads of `x`, `[M, n_heads, head_dim]`, each row by the angles of its position.
    ///
    /// # Panics
    /// Where `x` is not one row of heads for each position that `angles` were computed for.
    pub fn rope(&self, x: &mut [f32], n_heads: usize, head_dim: usize, angles: &RopeAngles, pairing: Pairing) {
        let (m, work) = (angles.m(), x.len());
        assert_eq!(work, m * n_heads * head_dim, "one row of heads for each position");
        let width = n_heads * head_dim;
        let x = Spread::new(x);
        self.for_each(m, work >= WORTH_A_PHASE, &|j| {
            // SAFETY: row `j` is written by one call alone.
            angles.rotate(j, unsafe { x.part(j * width, width) }, head_dim, pairing);
        });
    }

    /// Writes keys and values of positions `pos0..pos0 + m` to the cache: `k` and `v` are `[M, n_kv_heads, head_dim]`.
    ///
    /// # Panics
    /// Where the cache has no room for them.
    pub fn kv_append(&self, kv: &mut KvLayer, k: &[f32], v: &[f32], pos0: usize, m: usize) {
        let rows = kv.rows(pos0, m);
        let width = rows.width();
        assert!(k.len() == m * width && v.len() == m * width, "{m} rows of keys and of values");
        self.for_each(m, k.len() >= WORTH_A_PHASE, &|j| {
            // SAFETY: position `pos0 + j` is written by one call alone, and `kv` is borrowed for this whole function.
            unsafe { rows.write(j, &k[j * width..][..width], &v[j * width..][..width]) };
        });
    }

    /// The lowest index of the largest logit; NaN never wins. Of no logits, or only NaN, index 0.
    pub fn argmax(&self, logits: &[f32]) -> u32 {
        crate::argmax::argmax(logits)
    }
}
