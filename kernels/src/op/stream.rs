//! `stream_read`: a pure read, the floor of every product.
//!
//! Device arguments: `(const u8* data, u32* y, long long BYTES)`. A block adds up the 32-bit words that it reads, modulo
//! 2³², and writes the sum to its own word of `y`; words that no block owns keep what they hold.

use std::sync::Arc;

use harness_spec::{Bytes, CellFailure, Shape, Workload};
use variants::{Activations, KernelSpec};

use super::Op;
use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::Recipe;
use crate::check::{Expected, Want};

/// The read.
#[derive(Debug)]
pub(super) struct StreamRead;

/// Blocks that there is room for: one for each 2048 bytes, and as many as a persistent grid may have. No more, as the
/// words of every launch are poisoned before a timed interval and looked at behind it.
fn blocks(bytes: usize) -> usize {
    bytes.div_ceil(2048).max(1 << 11)
}

fn data(bytes: usize, seed: u64) -> Arc<[u8]> {
    let mut rng = Rng::new(seed, 1);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        out.extend_from_slice(&rng.bits().to_le_bytes());
    }
    out.truncate(bytes);
    out.into()
}

impl Op for StreamRead {
    fn name(&self) -> &'static str {
        "stream_read"
    }

    fn dims(&self) -> &'static [&'static str] {
        &["BYTES"]
    }

    fn bytes(&self, shape: &Shape, _: &KernelSpec) -> Bytes {
        Bytes(dim(shape, "BYTES") as u64)
    }

    /// One addition for each word.
    fn flops(&self, shape: &Shape) -> u64 {
        dim(shape, "BYTES") as u64 / 4
    }

    fn cases(&self, _: &Shape, seed: u64, _: Depth) -> Vec<Case> {
        (0..3u64)
            .map(|i| Case {
                name: format!("random seed {i}"),
                seed: seed.wrapping_mul(0x1_0001).wrapping_add(i),
                dtype: None,
                recipe: Recipe::Stream,
            })
            .collect()
    }

    fn awkward_shapes(&self, _: &Shape, _: Depth) -> Vec<Shape> {
        // One vector, one line, odd numbers of vectors, and a length that no tile divides.
        [16, 128, 4080, 65_552, 1_327_120].map(|b| Shape::of([("BYTES", b)])).to_vec()
    }

    fn overflow_shape(&self) -> Option<Shape> {
        Some(Shape::of([("BYTES", (1 << 31) + 65_552)]))
    }

    fn problem(&self, shape: &Shape, case: &Case) -> Problem {
        let bytes = dim(shape, "BYTES");
        Problem {
            workload: Workload { op: self.name().to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::Bytes(data(bytes, case.seed))],
            outputs: vec![OutputSpec { name: "y", elem: Elem::U32, len: blocks(bytes) }],
            scalars: Vec::new(),
            exact: true,
        }
    }

    fn expected(&self, problem: &Problem, _: Activations) -> Option<Expected> {
        let Tensor::Bytes(data) = &problem.inputs[0] else { panic!("the input of a read is bytes") };
        let sum = data.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).fold(0, u32::wrapping_add);
        Some(Expected { outputs: vec![Want::WordSum(sum)] })
    }

    fn arguments(&self, problem: &Problem, _: &KernelSpec) -> Result<Vec<Arg>, CellFailure> {
        let Tensor::Bytes(data) = &problem.inputs[0] else { panic!("the input of a read is bytes") };
        Ok(vec![Arg::In { bytes: data.clone(), weights: true }, Arg::Out(0), Arg::I64(data.len() as i64)])
    }

    /// The data are the weights, so they stay.
    fn redraw(&self, _: &mut Problem, _: u64) {}
}
