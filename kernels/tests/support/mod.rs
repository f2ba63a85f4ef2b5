//! Weights, activations and the comparison that the conformance tests share.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::fmt;

use harness_spec::DType;
use kernels::cpu::{Act, Cpu, CpuOptions, Matrix, Precision, Proj, Weights};
use kernels::{Isa, quant};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use variants::{Activations, Table};

/// A way to run the kernels: level, precision, table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub isa: Isa,
    pub precision: Precision,
    pub baseline: bool,
}

impl Setting {
    pub fn cpu(&self, threads: usize) -> Cpu {
        let table = if self.baseline { Table::baseline() } else { Table::default_for(self.isa) };
        Cpu::new(CpuOptions { threads, isa: self.isa, table, pin: false })
    }

    /// Whether weights of this type meet activations rounded to int8.
    pub fn rounds(&self, dtype: DType) -> bool {
        let w = random_weights(dtype, 1, 256, 0);
        matrix(&self.cpu(1), dtype, (1, 256), &w, self.precision).activations() == Activations::A8
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}{}", self.isa, self.precision, if self.baseline { " baseline" } else { "" })
    }
}

/// Every level of this machine at both precisions, and the baseline table.
pub fn settings() -> Vec<Setting> {
    let mut all: Vec<_> = Isa::available()
        .into_iter()
        .flat_map(|isa| {
            [Precision::Fast, Precision::Exact].map(|precision| Setting { isa, precision, baseline: false })
        })
        .collect();
    all.push(Setting { isa: Isa::detect(), precision: Precision::Fast, baseline: true });
    all
}

pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Blocks with every code and plausible scales: random bytes, with f16 scales between 1/64 and 1.
pub fn random_weights(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::TQ1_0 | DType::TQ2_0 => {
            return quant::quantize(dtype, &random(n * k, seed)).unwrap();
        }
        _ => {}
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = vec![0u8; dtype.row_bytes(k).unwrap() * n];
    rng.fill(&mut bytes[..]);
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for at in scale_offsets(dtype) {
            let d = half::f16::from_f32(rng.random_range(1.0f32 / 64.0..1.0));
            block[*at..at + 2].copy_from_slice(&d.to_le_bytes());
        }
    }
    bytes
}

/// Blocks whose weights are small integers: scales of one, and minima that are integers.
pub fn integer_weights(dtype: DType, n: usize, k: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        let x: Vec<f32> = (0..n * k).map(|_| rng.random_range(-8i32..8) as f32).collect();
        return quant::quantize(dtype, &x).unwrap();
    }
    if matches!(dtype, DType::TQ1_0 | DType::TQ2_0) {
        let x: Vec<f32> =
            (0..n * k).map(|i| if i % 256 == 0 { 0.5 } else { 0.5 * rng.random_range(-1i32..2) as f32 }).collect();
        return quant::quantize(dtype, &x).unwrap();
    }
    let mut bytes = random_weights(dtype, n, k, 98);
    // Small scales keep every sum below 2^24: the K-quants multiply them with another 6 or 8 bits.
    set_scales(dtype, &mut bytes, 0.25);
    if matches!(dtype, DType::Q4K | DType::Q5K) {
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            block[4..16].iter_mut().for_each(|b| *b &= 0x33);
        }
    }
    if dtype == DType::Q6K {
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            block[192..208].iter_mut().for_each(|b| *b = (*b as i8 >> 4) as u8);
        }
    }
    bytes
}

/// Where the f16 scales of a block are.
fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q6K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::F32 | DType::F16 | DType::BF16 => &[],
    }
}

pub fn set_scales(dtype: DType, bytes: &mut [u8], d: f32) {
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for at in scale_offsets(dtype) {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        }
    }
}

pub fn matrix(cpu: &Cpu, dtype: DType, (n, k): (usize, usize), w: &[u8], precision: Precision) -> Matrix {
    Matrix::from_gguf(cpu, dtype, n, k, Weights::Owned(w.to_vec()), precision).unwrap()
}

/// `y = W x` into an output full of NaN.
pub fn multiply(cpu: &Cpu, setting: &Setting, dtype: DType, shape: (usize, usize), w: &[u8], x: &[f32]) -> Vec<f32> {
    multiply_with(cpu, &matrix(cpu, dtype, shape, w, setting.precision), x)
}

/// `y = W x` of a matrix into an output full of NaN.
pub fn multiply_with(cpu: &Cpu, w: &Matrix, x: &[f32]) -> Vec<f32> {
    let m = x.len() / w.k();
    let mut act = Act::new(m, w.k());
    cpu.act(x, m, w.k(), &mut act);
    let mut y = vec![f32::NAN; m * w.n()];
    cpu.matmul(&act, &mut [Proj { w, bias: None, y: &mut y, add: false }]);
    y
}

/// The f64 result and the sum of magnitudes of every output.
pub fn reference(dtype: DType, n: usize, w: &[u8], x: &[f32], k: usize) -> Vec<(f64, f64)> {
    let dense = kernels::reference::decode(dtype, n, w);
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    kernels::reference::matmul(&dense, &x, k)
}

/// The activations as a kernel of this setting sees them: rounded to a8/32, or as they are.
pub fn seen(setting: &Setting, dtype: DType, x: &[f32]) -> Vec<f64> {
    seen_as(if setting.rounds(dtype) { Activations::A8 } else { Activations::F32 }, x)
}

/// The activations in the form that a kernel takes.
pub fn seen_as(form: Activations, x: &[f32]) -> Vec<f64> {
    if form != Activations::A8 {
        return x.iter().map(|&v| f64::from(v)).collect();
    }
    x.chunks_exact(32)
        .flat_map(|group| {
            let (q, s) = kernels::reference::quantize_group(group);
            q.into_iter().map(move |q| f64::from(q) * f64::from(s))
        })
        .collect()
}

/// Checks a product against f64: class T1 on the activations as the kernel sees them, and T2 on the true ones.
pub fn check(cpu: &Cpu, setting: &Setting, dtype: DType, shape: (usize, usize), w: &[u8], x: &[f32], what: &str) {
    let got = multiply(cpu, setting, dtype, shape, w, x);
    let form = if setting.rounds(dtype) { Activations::A8 } else { Activations::F32 };
    check_result(form, dtype, shape, w, x, &got, &format!("{setting} {what}"));
}

/// Checks the product of a kernel that takes activations in this form.
pub fn check_result(
    form: Activations,
    dtype: DType,
    (n, k): (usize, usize),
    w: &[u8],
    x: &[f32],
    got: &[f32],
    what: &str,
) {
    let dense = kernels::reference::decode(dtype, n, w);
    let same = kernels::reference::matmul(&dense, &seen_as(form, x), k);
    assert_eq!(got.len(), same.len());
    let offsets = offset_magnitudes(dtype, n, w, k, &seen_as(form, x));
    for (i, ((&got, &(want, magnitude)), offset)) in got.iter().zip(&same).zip(&offsets).enumerate() {
        let bound = 1e-5 * (magnitude + offset) + 1e-40;
        let error = (f64::from(got) - want).abs();
        assert!(error <= bound, "{dtype} {what} output {i}: {got} instead of {want}, off by {error:e} > {bound:e}");
    }
    let exact = reference(dtype, n, w, x, k);
    let (mut wrong, mut size) = (0.0, 0.0);
    for (&got, &(want, magnitude)) in got.iter().zip(&exact) {
        wrong += (f64::from(got) - want).powi(2);
        // Against the magnitude that was summed: results near zero by cancellation have no relative accuracy.
        size += magnitude.powi(2) / k as f64 + want.powi(2);
    }
    let class = if form == Activations::A8 { 1e-2 } else { 1e-5 };
    assert!(wrong.sqrt() <= class * size.sqrt() + 1e-30, "{dtype} {what}: {} of {}", wrong.sqrt(), size.sqrt());
}

/// What a format with a minimum sums beside the weights: code part and minimum are added apart, so each rounds by its
/// own magnitude, which can be far above that of the weight.
fn offset_magnitudes(dtype: DType, n: usize, w: &[u8], k: usize, x: &[f64]) -> Vec<f64> {
    if !matches!(dtype, DType::Q4_1 | DType::Q4K | DType::Q5K) {
        return vec![0.0; n * x.len() / k];
    }
    // The same blocks with every code zero hold the minima alone.
    let mut minima = w.to_vec();
    for block in minima.chunks_exact_mut(dtype.block_bytes()) {
        let codes = if dtype == DType::Q4_1 { 4 } else { 16 };
        block[codes..].fill(0);
    }
    let dense = kernels::reference::decode(dtype, n, &minima);
    kernels::reference::matmul(&dense, x, k).into_iter().map(|(_, magnitude)| magnitude).collect()
}
