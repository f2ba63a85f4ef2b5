//! gemv_g128 / plain, dequant@avx2: y = W · x with float activations, for the INT4 layout of which no file type exists.
//!
//!   W  nibbles `[N, K/2]`, low nibble the even column; scales f16 `[N, K/128]` apart       x  f32 [K]       y  f32 [N]
//!
//! w = d (q - 8). A row's group of 128 is multiplied as codes less 8 and scaled once. The same code is compiled twice: for
//! whatever the target allows, and for AVX2, where the compiler's vectors do the unpacking.

use variants::Isa;

use crate::cpu::{Cpu, Spread};

/// Columns that share a scale.
pub(crate) const GROUP: usize = 128;
const LANES: usize = 16;

/// Weights of this layout.
#[derive(Clone, Debug)]
pub(crate) struct G128 {
    n: usize,
    k: usize,
    codes: Vec<u8>,
    scales: Vec<half::f16>,
}

impl G128 {
    /// Repacks Q4_0 blocks, of which each four of a row have the same scale; `None` where K is no whole number of groups.
    pub(crate) fn from_q4_0(n: usize, k: usize, blocks: &[u8]) -> Option<G128> {
        if !k.is_multiple_of(GROUP) || blocks.len() != n * k / 32 * 18 {
            return None;
        }
        let mut codes = Vec::with_capacity(n * k / 2);
        let mut scales = Vec::with_capacity(n * k / GROUP);
        for group in blocks.chunks_exact(4 * 18) {
            scales.push(half::f16::from_le_bytes([group[0], group[1]]));
            for block in group.chunks_exact(18) {
                // Column j is the low nibble of byte j, column 16 + j the high one.
                let code = |column: usize| block[2 + column % 16] >> (column / 16 * 4) & 15;
                codes.extend((0..16).map(|pair| code(2 * pair) | code(2 * pair + 1) << 4));
            }
        }
        Some(G128 { n, k, codes, scales })
    }

    /// `y = W x` for the M rows of `x`, with a kernel of a level that this machine has.
    ///
    /// # Panics
    /// Where shapes disagree.
    pub(crate) fn multiply(&self, cpu: &Cpu, isa: Isa, x: &[f32], y: &mut [f32]) {
        let m = x.len() / self.k;
        assert!(x.len() == m * self.k && y.len() == m * self.n, "{} x {} and {m} tokens", self.n, self.k);
        let y = Spread::new(y);
        cpu.for_each(self.n, true, &|row| {
            let codes = &self.codes[row * self.k / 2..][..self.k / 2];
            let scales = &self.scales[row * self.k / GROUP..][..self.k / GROUP];
            for (token, x) in x.chunks_exact(self.k).enumerate() {
                // SAFETY: each element is written by one call alone.
                unsafe { y.part(token * self.n + row, 1)[0] = dot(isa, codes, scales, x) };
            }
        });
    }
}

fn dot(isa: Isa, codes: &[u8], scales: &[half::f16], x: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 {
        // SAFETY: callers ask for levels that this machine has.
        return unsafe { dot_avx2(codes, scales, x) };
    }
    let _ = isa;
    dot_plain(codes, scales, x)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(codes: &[u8], scales: &[half::f16], x: &[f32]) -> f32 {
    dot_plain(codes, scales, x)
}

#[inline(always)]
fn dot_plain(codes: &[u8], scales: &[half::f16], x: &[f32]) -> f32 {
    let mut total = 0.0;
    for ((codes, x), d) in codes.as_chunks::<{ GROUP / 2 }>().0.iter().zip(x.as_chunks::<GROUP>().0).zip(scales) {
        let mut even = [0.0f32; LANES];
        let mut odd = [0.0f32; LANES];
        for (codes, x) in codes.as_chunks::<LANES>().0.iter().zip(x.as_chunks::<{ 2 * LANES }>().0) {
            for i in 0..LANES {
                even[i] += (i32::from(codes[i] & 15) - 8) as f32 * x[2 * i];
                odd[i] += (i32::from(codes[i] >> 4) - 8) as f32 * x[2 * i + 1];
            }
        }
        let sum: f32 = even.iter().zip(odd).map(|(a, b)| a + b).sum();
        total += d.to_f32() * sum;
    }
    total
}
