//! What is built on a product: bias, residual, joined matrices, SwiGLU, look-up of rows, and matrices that are refused.

mod support;

use std::sync::Arc;

use harness_spec::DType;
use kernels::cpu::{Act, BuildError, Matrix, Precision, Proj, Weights};
use kernels::quant::{self, QuantError};
use kernels::reference;
use support::*;

#[test]
fn bias_residual_and_joined_matrices_of_mixed_types_equal_the_separate_products() {
    for setting in settings() {
        for threads in [1, 2, 3] {
            let cpu = setting.cpu(threads);
            let (k, m) = (256, 5);
            let x = random(m * k, 1);
            let parts = [(DType::Q4K, 40), (DType::Q6K, 17), (DType::F16, 9)];
            let alone: Vec<Vec<f32>> = parts
                .iter()
                .map(|&(dtype, n)| multiply(&cpu, &setting, dtype, (n, k), &random_weights(dtype, n, k, n as u64), &x))
                .collect();
            let weights: Vec<Matrix> = parts
                .iter()
                .map(|&(dtype, n)| {
                    matrix(&cpu, dtype, (n, k), &random_weights(dtype, n, k, n as u64), setting.precision)
                })
                .collect();
            let mut act = Act::new(m, k);
            cpu.act(&x, m, k, &mut act);
            let bias = random(40, 9);
            let before = random(17 * m, 10);
            let (mut a, mut b, mut c) = (vec![f32::NAN; 40 * m], before.clone(), vec![f32::NAN; 9 * m]);
            cpu.matmul(
                &act,
                &mut [
                    Proj { w: &weights[0], bias: Some(&bias), y: &mut a, add: false },
                    Proj { w: &weights[1], bias: None, y: &mut b, add: true },
                    Proj { w: &weights[2], bias: None, y: &mut c, add: false },
                ],
            );
            for (i, &y) in a.iter().enumerate() {
                assert_eq!(y, alone[0][i] + bias[i % 40], "{setting} bias");
            }
            for (i, &y) in b.iter().enumerate() {
                assert_eq!(y, before[i] + alone[1][i], "{setting} residual");
            }
            assert_eq!(c, alone[2], "{setting}");
        }
    }
}

#[test]
fn swiglu_of_a_product_equals_the_products_then_swiglu() {
    for setting in settings() {
        let cpu = setting.cpu(2);
        for (gate_type, up_type) in [(DType::Q4_0, DType::Q4_0), (DType::Q4_1, DType::F32), (DType::Q5_0, DType::Q8_0)]
        {
            for (n, m) in [(48, 1), (37, 1), (2080, 1), (37, 7), (64, 7), (16, 70)] {
                let k = 96;
                let x = random(m * k, 2);
                let weights = [(gate_type, 3), (up_type, 4)].map(|(dtype, seed)| random_weights(dtype, n, k, seed));
                let gate = multiply(&cpu, &setting, gate_type, (n, k), &weights[0], &x);
                let up = multiply(&cpu, &setting, up_type, (n, k), &weights[1], &x);
                let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
                let want = reference::swiglu(&wide(&gate), &wide(&up));
                let mut act = Act::new(m, k);
                cpu.act(&x, m, k, &mut act);
                let (mut out, mut again) = (Act::new(m, n), Act::new(m, n));
                let gate = matrix(&cpu, gate_type, (n, k), &weights[0], setting.precision);
                let up = matrix(&cpu, up_type, (n, k), &weights[1], setting.precision);
                cpu.gate_up_swiglu(&act, &gate, &up, &mut out);
                let got: Vec<f32> = (0..m).flat_map(|j| out.row(j)).copied().collect();
                for (&got, &want) in got.iter().zip(&want) {
                    assert!((f64::from(got) - want).abs() <= 1e-6 * want.abs() + 1e-30, "{setting} {got} {want}");
                }
                if n.is_multiple_of(32) {
                    // They are ready for a product, as if they had been prepared as a whole.
                    cpu.act(&got, m, n, &mut again);
                    let down = random_weights(DType::Q4_0, 16, n, 5);
                    let down = matrix(&cpu, DType::Q4_0, (16, n), &down, setting.precision);
                    let [y, want] = [&out, &again].map(|act| {
                        let mut y = vec![f32::NAN; m * 16];
                        cpu.matmul(act, &mut [Proj { w: &down, bias: None, y: &mut y, add: false }]);
                        y
                    });
                    assert_eq!(y, want, "{setting} {n} x {m}");
                }
            }
        }
    }
}

#[test]
fn a_row_looked_up_is_the_row_of_the_file_in_every_layout() {
    for setting in settings() {
        let cpu = setting.cpu(2);
        for dtype in DType::ALL {
            let (n, k) = (37, 768);
            let w = random_weights(dtype, n, k, 5);
            let table = matrix(&cpu, dtype, (n, k), &w, setting.precision);
            let ids = [36u32, 0, 15, 16, 17, 8, 36];
            let mut out = vec![f32::NAN; ids.len() * k];
            cpu.embed(&table, &ids, &mut out);
            let row = dtype.row_bytes(k).unwrap();
            for (&id, got) in ids.iter().zip(out.chunks_exact(k)) {
                let mut want = vec![0.0; k];
                quant::dequantize_row(dtype, &w[id as usize * row..][..row], &mut want);
                assert_eq!(got, want, "{setting} {dtype} row {id}");
            }
        }
    }
}

#[test]
fn only_matrices_in_the_layout_of_the_file_keep_the_file() {
    let cpu = settings().last().unwrap().cpu(1);
    for setting in settings() {
        let cpu_at = setting.cpu(1);
        let source: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(random_weights(DType::Q4_0, 16, 64, 1));
        let weights = Weights::Shared { owner: source, range: 0..16 * 36 };
        let w = Matrix::from_gguf(&cpu_at, DType::Q4_0, 16, 64, weights, setting.precision).unwrap();
        assert_eq!(w.borrows_source(), w.layout() == variants::Layout::Gguf, "{setting}");
    }
    // At odd addresses too: blocks are only promised an alignment of two, and a mapping may start anywhere.
    let mut shifted = vec![0u8; 1];
    shifted.extend(random_weights(DType::F16, 4, 64, 2));
    let want = multiply(&cpu, settings().last().unwrap(), DType::F16, (4, 64), &shifted[1..], &random(64, 3));
    for setting in settings() {
        let cpu = setting.cpu(1);
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(shifted.clone());
        let w = Matrix::from_gguf(&cpu, DType::F16, 4, 64, Weights::Shared { owner, range: 1..513 }, setting.precision)
            .unwrap();
        let mut act = Act::new(1, 64);
        cpu.act(&random(64, 3), 1, 64, &mut act);
        let mut y = vec![f32::NAN; 4];
        cpu.matmul(&act, &mut [Proj { w: &w, bias: None, y: &mut y, add: false }]);
        assert!(y.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5), "{setting} {y:?} {want:?}");
    }
}

#[test]
fn what_is_no_matrix_is_refused_with_its_reason() {
    let cpu = settings()[0].cpu(1);
    let build = |dtype, n, k, bytes: Vec<u8>| {
        Matrix::from_gguf(&cpu, dtype, n, k, Weights::Owned(bytes), Precision::Fast).map(|_| ()).unwrap_err()
    };
    let mut ternary = quant::quantize(DType::TQ2_0, &[1.0; 256]).unwrap();
    ternary[7] = 0b11;
    assert_eq!(build(DType::TQ2_0, 1, 256, ternary), BuildError::Weights(QuantError::TernaryCode { block: 0 }));
    assert!(matches!(build(DType::Q4_0, 2, 32, vec![0; 18]), BuildError::Weights(QuantError::Size { want: 36, .. })));
    assert!(matches!(build(DType::Q6K, 1, 576, vec![]), BuildError::Weights(QuantError::Block { k: 576, .. })));
    assert!(matches!(build(DType::F32, 0, 32, vec![]), BuildError::Empty { .. }));
}
