//! Which kernels a loaded model runs, for a token and for a prompt: what tells whether another table changes anything.

use std::collections::BTreeSet;

use harness_spec::{Shape, VariantId, Workload};
use kernels::cpu::Matrix;
use kernels::cuda::CudaError;
use variants::gemv_op;

use crate::Engine;
use crate::cuda::CudaModel;
use crate::model::Model;

/// A workload and what runs it, in words. Two of the same words run the same code.
pub type Launch = (Workload, String);

/// The launches of a model, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// Those of a token behind the prompt; what runs a workload is named by its variant.
    pub token: BTreeSet<Launch>,
    /// Those that take the prompt: many tokens at once, and what a token launches for those that are taken one by one, be it
    /// the few that are left of its chunks or all. What is computed of the last of many alone, such as the logits, is part of
    /// every generated token too and counted there.
    pub prompt: BTreeSet<Launch>,
}

impl Engine {
    /// What this model launches for a prompt of so many tokens, and for a token behind it. On a GPU kernels that could not
    /// run are known to be out of service from the first request on.
    ///
    /// # Errors
    /// A prompt that there is no kernel for.
    pub fn launched(&self, prompt: usize) -> Result<Launched, CudaError> {
        match (self.cuda(), self.model()) {
            (Some(model), _) => on_cuda(model, prompt),
            (None, Some(model)) => Ok(on_cpu(model)),
            (None, None) => Ok(Launched::default()),
        }
    }
}

fn on_cuda(model: &CudaModel, prompt: usize) -> Result<Launched, CudaError> {
    let named = |(workload, variant): (Workload, VariantId)| (workload, variant.to_string());
    Ok(Launched {
        token: model.steps(prompt).into_iter().map(named).collect(),
        prompt: model.prompt_steps(prompt)?.into_iter().map(named).collect(),
    })
}

/// The table chooses the products alone, and the layouts of weights with them.
fn on_cpu(model: &Model) -> Launched {
    let workload = |w: &Matrix| {
        let shape = Shape::of([("N", w.n() as u64), ("K", w.k() as u64)]);
        Workload { op: gemv_op(w.dtype()).to_owned(), shape }
    };
    let of_many = |w: &Matrix| (workload(w), w.code_of_many());
    let blocks = model.layers.iter().flat_map(|l| [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down]);
    let embedding = &*model.embed;
    let looked_up = (workload(embedding), format!("rows of {}", embedding.layout()));
    Launched {
        token: model.matrices().map(|w| (workload(w), w.variant().to_string())).collect(),
        prompt: blocks.map(of_many).chain([looked_up]).collect(),
    }
}
