//! Decode and prefill products of every tuned type at the shapes of SmolLM2's and Qwen2.5's feed-forward part.
//!
//! Decode walks through copies of a matrix that together exceed the last-level cache, so its weights are cold, as they
//! are in a model; the throughput is bytes of weights. Prefill's throughput is multiply-adds.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use harness_spec::DType;
use kernels::Isa;
use kernels::cpu::{Act, Cpu, CpuOptions, Matrix, Precision, Proj, Weights};
use variants::Table;

const TYPES: [DType; 6] = [DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K, DType::Q6K, DType::F16];
/// Above the 32 MiB of the last-level cache of the machines this was written on.
const COLD_BYTES: usize = 128 << 20;
const TOKENS: usize = 128;

/// Weights whose values do not matter: every byte 0x11 is a legal block of every type, with small finite scales.
fn weights(cpu: &Cpu, dtype: DType, n: usize, k: usize) -> Matrix {
    let bytes = vec![0x11; dtype.row_bytes(k).expect("the shapes are whole blocks") * n];
    Matrix::from_gguf(cpu, dtype, n, k, Weights::Owned(bytes), Precision::Fast).expect("the bytes are whole rows")
}

fn activations(cpu: &Cpu, m: usize, k: usize) -> Act {
    let x: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut act = Act::new(m, k);
    cpu.act(&x, m, k, &mut act);
    act
}

fn products(c: &mut Criterion) {
    for isa in Isa::available() {
        let cpu = Cpu::new(CpuOptions { isa, table: Table::default_for(isa), ..CpuOptions::default() });
        for dtype in TYPES {
            for (n, k) in [(1536, 768), (8960, 1536)] {
                let first = weights(&cpu, dtype, n, k);
                let name = format!("{dtype}/{isa}/{n}x{k}");
                let mut y = vec![0.0; TOKENS * n];

                let copies = COLD_BYTES.div_ceil(first.bytes());
                let matrices: Vec<_> = (0..copies).map(|_| weights(&cpu, dtype, n, k)).collect();
                let act = activations(&cpu, 1, k);
                let mut group = c.benchmark_group("decode_cold");
                group.throughput(Throughput::BytesDecimal(first.bytes() as u64));
                let mut next = 0;
                group.bench_function(BenchmarkId::from_parameter(&name), |b| {
                    b.iter(|| {
                        next = (next + 1) % copies;
                        cpu.matmul(&act, &mut [Proj { w: &matrices[next], bias: None, y: &mut y[..n], add: false }]);
                        black_box(&y);
                    });
                });
                group.finish();

                let act = activations(&cpu, TOKENS, k);
                let mut group = c.benchmark_group("prefill_128");
                group.throughput(Throughput::Elements((TOKENS * n * k) as u64));
                group.bench_function(BenchmarkId::from_parameter(&name), |b| {
                    b.iter(|| {
                        cpu.matmul(&act, &mut [Proj { w: &first, bias: None, y: &mut y, add: false }]);
                        black_box(&y);
                    });
                });
                group.finish();
            }
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
