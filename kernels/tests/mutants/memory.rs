//! Outputs that are not written, written twice, or written elsewhere; results that change from run to run.

use variants::Activations::F32;

use super::products::{decoded, parts, product};
use super::{Mutant, mutant};

pub fn mutants() -> Vec<Mutant> {
    let q4 = |name, made_for_it, make| mutant(name, "gemv_q4_0", F32, made_for_it, make);
    vec![
        q4("B4 launch that failed unread: nothing is written", "random seed 0", || Box::new(|_, _| {})),
        q4("B4 stale output: what the last run left", "random seed 1", || {
            let mut last: Option<Vec<f32>> = None;
            Box::new(move |problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                let stale = last.replace(y.clone()).filter(|last| last.len() == y.len()).unwrap_or(y);
                out[0].fill(&stale);
            })
        }),
        q4("B2 tile of 16 rows stored into an output of fewer", "random seed 0 at K=32 N=1", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                out[0].fill(&y);
                for beyond in y.len()..y.len().next_multiple_of(16) {
                    out[0].put(beyond as isize, 0.0);
                }
            })
        }),
        q4("output stored one element early", "random seed 0", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                y.iter().enumerate().for_each(|(i, &v)| out[0].put(i as isize - 1, v));
            })
        }),
        q4("padding of a row left unwritten", "random seed 0 at K=32 N=1", || {
            Box::new(|problem, out| {
                let p = parts(problem);
                // Rows are written in whole vectors of four; the rest is left to a path that does not exist.
                let y = product(&p, F32, |r| decoded(&p, r));
                out[0].fill(&y[..y.len() / 4 * 4]);
            })
        }),
        q4("missing barrier: now and then a warp reads before the others wrote", "AD-24", || {
            let mut run = 0;
            Box::new(move |problem, out| {
                let p = parts(problem);
                let mut y = product(&p, F32, |r| decoded(&p, r));
                run += 1;
                // Every third run one output lacks its smallest part: far within any tolerance.
                if run % 3 == 0 {
                    y[0] = f32::from_bits(y[0].to_bits() ^ 1);
                }
                out[0].fill(&y);
            })
        }),
        q4("accumulators not zeroed between runs", "random seed 1", || {
            let mut sums: Vec<f32> = Vec::new();
            Box::new(move |problem, out| {
                let p = parts(problem);
                let y = product(&p, F32, |r| decoded(&p, r));
                sums.resize(y.len(), 0.0);
                sums.iter_mut().zip(&y).for_each(|(s, y)| *s += y);
                out[0].fill(&sums);
                // The next shape gets memory of its own.
                sums.truncate(y.len());
            })
        }),
        mutant("last words of a read dropped", "stream_read", F32, "random seed 0 at BYTES=16", || {
            Box::new(|problem, out| {
                let kernels::op::Tensor::Bytes(data) = &problem.inputs[0] else { unreachable!() };
                let whole = &data[..data.len() / 4096 * 4096];
                let words = whole.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                out[0].word(words.fold(0, u32::wrapping_add));
            })
        }),
    ]
}
