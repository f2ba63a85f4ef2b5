//! Whether there are kernels for a model on a device, told from the table before anything is sent there.

use harness_spec::{Shape, Workload};
use variants::{Table, gemv_op};

use crate::gguf::TensorInfo;
use crate::model::{Config, EMBED, HEAD, LoadError};

/// A length and a room: neither chooses a kernel.
const ROOM: [(&str, u64); 2] = [("LEN", 512), ("MAX_LEN", 4096)];

/// Asks for a kernel of attention, one that looks up rows of the embedding, one for the head, and a product for every other
/// matrix: all of them for the very types of this file.
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
    let matrices: Vec<_> = tensors.filter(|(_, tensor)| tensor.n() > 1).collect();
    let head = if matrices.iter().any(|(name, _)| *name == HEAD) { HEAD } else { EMBED };
    for (name, tensor) in matrices {
        let shape = matrix_shape(tensor.n(), tensor.k());
        let of_type = |family: &str| format!("{family}_{}", tensor.dtype.name().to_lowercase());
        // Both forms of ternary weights share an op, whose kernels here read one of them.
        let takes = |op: &str, shape: &Shape| {
            table.choose(op, shape).is_some_and(|choice| choice.spec.dtypes.contains(&tensor.dtype))
        };
        let is_taken = match name {
            EMBED => takes(&of_type("embed"), &Shape::of(matrix(tensor.n(), tensor.k()).into_iter().chain([("M", 1)]))),
            HEAD => true,
            _ => takes(gemv_op(tensor.dtype), &shape),
        };
        if !is_taken {
            return refused(format!("no kernel takes tensor `{name}`, {} at {shape}", tensor.dtype));
        }
        if name == head && !takes(&of_type("norm_logits"), &shape) {
            return refused(format!("no kernel makes logits of tensor `{name}`, {} at {shape}", tensor.dtype));
        }
    }
    Ok(())
}

fn matrix(n: usize, k: usize) -> [(&'static str, u64); 2] {
    [("N", n as u64), ("K", k as u64)]
}

fn matrix_shape(n: usize, k: usize) -> Shape {
    Shape::of(matrix(n, k))
}

#[cfg(test)]
mod tests {
    use variants::{Backend, Limits};

    use super::*;
    use crate::gguf::Gguf;
    use crate::synth::{Scheme, Shape as ModelShape, SynthOptions, to_bytes};

    fn model(scheme: Scheme, head_dim: usize) -> Gguf {
        let shape = ModelShape { layers: 1, head_dim, ..ModelShape::find("smollm2-135m").unwrap() };
        let small = ModelShape { hidden: 256, inter: 512, n_heads: 4, n_kv_heads: 2, vocab: 288, ..shape };
        Gguf::from_bytes(to_bytes(&small, &SynthOptions { scheme, layers: None, seed: 1 }).unwrap()).unwrap()
    }

    fn refused_by(table: &Table, gguf: &Gguf) -> Option<String> {
        check(table, &Config::from_gguf(gguf).unwrap(), gguf.tensors()).err().map(|e| e.to_string())
    }

    fn tables() -> [Table; 2] {
        let limits = Limits::of_architecture(90).unwrap();
        [Table::default_on(Backend::Cuda, limits), Table::baseline_on(Backend::Cuda, limits)]
    }

    #[test]
    fn heads_that_no_kernel_takes_are_named_before_anything_is_loaded() {
        let [table, _] = tables();
        assert_eq!(refused_by(&table, &model(Scheme::Q8_0, 64)), None);
        let said = refused_by(&table, &model(Scheme::Q8_0, 16)).unwrap();
        assert!(
            said.contains("4 query heads") && said.contains("16 elements") && said.contains("--device cpu"),
            "{said}"
        );
    }

    #[test]
    fn a_type_of_weights_that_only_the_processor_reads_is_refused_on_every_path() {
        for table in tables() {
            for scheme in Scheme::ALL {
                let said = refused_by(&table, &model(scheme, 64));
                // The kernels for ternary weights read the other form; floats of 32 bits have no kernel for the head.
                let want = match scheme {
                    Scheme::TQ1_0 => Some("TQ1_0"),
                    Scheme::F32 => Some("makes logits of tensor `token_embd.weight`, F32"),
                    _ => None,
                };
                let is_as_wanted = match (want, &said) {
                    (None, said) => said.is_none(),
                    (Some(want), Some(said)) => said.contains(want) && said.contains("--device cpu"),
                    (Some(_), None) => false,
                };
                assert!(is_as_wanted, "{}: {said:?}", scheme.name());
            }
        }
    }
}
