//! Whether there are kernels for a model on a device, told from the table before anything is sent there.

use harness_spec::{Shape, Workload};
use variants::{Table, gemv_op};

use crate::gguf::TensorInfo;
use crate::model::{Config, EMBED, LoadError};

/// A length and a room: neither chooses a kernel.
const ROOM: [(&str, u64); 2] = [("LEN", 512), ("MAX_LEN", 4096)];

/// Asks for a kernel of attention, and of a product of every type of weights.
///
/// # Errors
/// [`LoadError::NotOnCuda`] names what nothing takes.
pub fn check<'a>(
    table: &Table,
    config: &Config,
    tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>,
) -> Result<(), LoadError> {
    let refused = |what: String| Err(LoadError::NotOnCuda { what });
    let heads = [("HEADS", config.n_heads), ("KV_HEADS", config.n_kv_heads), ("DIM", config.head_dim)];
    let heads = heads.map(|(name, value)| (name, value as u64));
    let attention = Workload::of("attn_token", heads.into_iter().chain(ROOM).chain([("KV", 16), ("OUT", 32)]));
    if table.choose(&attention.op, &attention.shape).is_none() {
        return refused(format!(
            "no kernel of attention takes {} query heads, {} key heads and {} elements a head",
            config.n_heads, config.n_kv_heads, config.head_dim
        ));
    }
    for (name, tensor) in tensors.filter(|(name, tensor)| tensor.n() > 1 && *name != EMBED) {
        let shape = Shape::of([("N", tensor.n() as u64), ("K", tensor.k() as u64)]);
        if table.choose(gemv_op(tensor.dtype), &shape).is_none() {
            return refused(format!("no kernel takes tensor `{name}`, {} at {shape}", tensor.dtype));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use variants::{Backend, Limits};

    use super::*;
    use crate::gguf::Gguf;
    use crate::synth::{Scheme, Shape as ModelShape, SynthOptions, to_bytes};

    fn said(head_dim: usize) -> Option<String> {
        let shape = ModelShape { layers: 1, head_dim, ..ModelShape::find("smollm2-135m").unwrap() };
        let small = ModelShape { hidden: 64, inter: 96, n_heads: 4, n_kv_heads: 2, vocab: 288, ..shape };
        let bytes = to_bytes(&small, &SynthOptions { scheme: Scheme::Q8_0, layers: None, seed: 1 }).unwrap();
        let gguf = Gguf::from_bytes(bytes).unwrap();
        let table = Table::default_on(Backend::Cuda, Limits::of_architecture(90).unwrap());
        check(&table, &Config::from_gguf(&gguf).unwrap(), gguf.tensors()).err().map(|e| e.to_string())
    }

    #[test]
    fn heads_that_no_kernel_takes_are_named_before_anything_is_loaded() {
        assert_eq!(said(64), None);
        let said = said(16).unwrap();
        assert!(
            said.contains("4 query heads") && said.contains("16 elements") && said.contains("--device cpu"),
            "{said}"
        );
    }
}
