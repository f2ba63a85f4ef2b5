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
    /// Those that take many tokens of the prompt at once. What is computed of its last token alone, such as the logits, is
    /// part of every generated token too and counted there; a prompt that is taken token by token launches what a token does.
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
    let token: BTreeSet<Launch> = model.steps(prompt).into_iter().map(named).collect();
    let prompt = match model.prompt_steps(prompt)? {
        Some(steps) => steps.into_iter().map(named).collect(),
        None => token.clone(),
    };
    Ok(Launched { token, prompt })
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
