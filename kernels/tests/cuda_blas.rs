//! Products by the matrix library on a device. Without a device or the library every test prints why it is skipped.

mod cuda_support;

use std::process::Command;

use cuda_support::device;
use half::f16;
use harness_spec::CellFailure;
use harness_spec::record::Outcome;
use kernels::cuda::driver::{Buffer, Stream};
use kernels::cuda::library::cublaslt;
use kernels::cuda::{Blas, CudaError, Product};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn halves(rng: &mut ChaCha8Rng, count: usize) -> Vec<f16> {
    (0..count).map(|_| f16::from_f32(rng.random_range(-1.0..1.0))).collect()
}

fn bytes_of(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Set in the process of [`an_absent_library_is_skipped_with_the_places_and_the_variable`] that has no library.
const INSIDE: &str = "EDGELLM_TEST_WITHOUT_CUBLASLT";

#[test]
fn an_absent_library_is_skipped_with_the_places_and_the_variable() {
    if std::env::var_os(INSIDE).is_none() {
        // A process looks for the library once.
        let name = "an_absent_library_is_skipped_with_the_places_and_the_variable";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let status = alone.args([name, "--exact"]).env(INSIDE, "1").env("EDGELLM_CUBLASLT", "/none").status();
        assert!(status.unwrap().success());
        return;
    }
    let outcome = Outcome::of_failure(CellFailure::from(cublaslt().unwrap_err()));
    let Outcome::Skipped { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("/none") && reason.contains("set EDGELLM_CUBLASLT"), "{reason}");
}

#[test]
fn a_product_by_the_library_is_that_of_f64_and_is_added_where_that_is_asked_for() {
    let Some(device) = device() else { return };
    let blas = match Blas::open(&device) {
        Ok(blas) => blas,
        Err(e @ CudaError::NoCublasLt { .. }) => {
            println!("skipped: {e}");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    println!("cuBLASLt {} at {}", blas.library().version_text(), blas.library().path.display());
    let stream = Stream::new(&device).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // Rows of y may be farther apart than they are long, and start anywhere: part of a joined row.
    for (n, k, m, row, column) in
        [(96, 64, 17, 96, 0), (33, 352, 5, 40, 4), (576, 576, 1, 960, 192), (64, 1536, 513, 64, 0), (7, 32, 3, 7, 0)]
    {
        let (w, x) = (halves(&mut rng, n * k), halves(&mut rng, m * k));
        let before: Vec<f32> = (0..m * row).map(|i| (i % 13) as f32 - 6.0).collect();
        let upload = |bytes: &[u8]| Buffer::of(&stream, bytes, "a matrix").unwrap();
        let (on_device_w, on_device_x) = (upload(&bytes_of(&w)), upload(&bytes_of(&x)));
        let y = upload(&before.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        for accumulate in [true, false] {
            let product = Product {
                w: on_device_w.address(),
                x: on_device_x.address(),
                y: y.address() + 4 * column as u64,
                n,
                k,
                m,
                row,
                half: true,
                accumulate,
            };
            // SAFETY: the buffers have these sizes, are used by nothing else, and live until the download below has waited.
            unsafe { blas.matmul(&stream, &product) }.unwrap();
            let got = y.download(&stream, 0, 4 * m * row, || "multiplying".to_owned()).unwrap();
            let got: Vec<f32> = got.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            for (i, &got) in got.iter().enumerate() {
                let (token, at) = (i / row, i % row);
                let Some(r) = at.checked_sub(column).filter(|&r| r < n) else {
                    assert_eq!(got, before[i], "N={n} K={k} M={m}: {i} lies between rows");
                    continue;
                };
                let terms = || w[r * k..][..k].iter().zip(&x[token * k..][..k]).map(|(w, x)| w.to_f64() * x.to_f64());
                let want = terms().sum::<f64>() + if accumulate { f64::from(before[i]) } else { 0.0 };
                let bound = 1e-6 * (k as f64).sqrt() * terms().map(f64::abs).sum::<f64>() + 1e-5;
                assert!((f64::from(got) - want).abs() <= bound, "N={n} K={k} M={m} at {i}: {got} instead of {want}");
            }
        }
    }
}
