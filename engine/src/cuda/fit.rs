//! Whether there are kernels for a model on a device, told from the table before anything is sent there.

use harness_spec::{Shape, Workload};
use variants::{Activations, Table, gemv_op};

use crate::gguf::TensorInfo;
use crate::model::{Config, EMBED, HEAD, LoadError};
use crate::tables;

/// A length and a room: neither chooses a kernel.
const ROOM: [(&str, u64); 2] = [("LEN", 512), ("MAX_LEN", 4096)];

/// Asks for a kernel of attention, one that looks up rows of the embedding, one for the head, and a product for every other
/// matrix: all of them for the very types of this file. Rows of products that no token can run leave their place to the next
/// one, which is said once.
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
    set_aside(table, config, &matrices).iter().for_each(|note| tables::say_once(note));
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

/// Takes those kernels of products out of service that want their activations in a form that no step of a token leaves, as
/// a table may name after products were timed alone. Answers what there is to say of each.
fn set_aside(table: &Table, config: &Config, matrices: &[(&str, &TensorInfo)]) -> Vec<String> {
    let (hidden, inter) = (config.hidden, config.inter);
    let mut products: Vec<(&'static str, Shape)> = Vec::new();
    for (_, tensor) in matrices {
        // Matrices of one type that take the same input are one product.
        let joined = [(config.q_width() + 2 * config.kv_width(), hidden), (2 * inter, hidden)];
        for (n, k) in [(tensor.n(), tensor.k())].into_iter().chain(joined) {
            let product = (gemv_op(tensor.dtype), matrix_shape(n, k));
            if !products.contains(&product) {
                products.push(product);
            }
        }
    }
    let mut notes = Vec::new();
    for (op, shape) in products {
        while let Some(choice) = table.choose(op, &shape).filter(|choice| !has_input(choice.spec.activations)) {
            let form = choice.spec.activations.map_or("none", Activations::name);
            let reason = format!("it takes activations as {form}, which no step of a token leaves");
            let note = format!("{} is left out at {shape}: {reason}", choice.variant);
            if !table.quarantine(op, &shape, &choice.variant.clone(), &reason) {
                break;
            }
            notes.push(note);
        }
    }
    notes
}

/// Whether the steps of a token have the input of a product in this form.
pub fn has_input(form: Option<Activations>) -> bool {
    matches!(form, None | Some(Activations::F32 | Activations::A8))
}

#[cfg(test)]
mod tests {
    use variants::{Backend, Limits, TableFile, registry};

    use super::*;
    use crate::gguf::Gguf;
    use crate::synth::{Scheme, Shape as ModelShape, SynthOptions, to_bytes};
    use crate::tables::tests as tables;

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

    #[test]
    fn a_row_whose_kernel_takes_activations_that_no_step_leaves_gives_way_to_the_next_and_that_is_said() {
        let gguf = model(Scheme::Q4_0, 64);
        let config = Config::from_gguf(&gguf).unwrap();
        let limits = Limits::of_architecture(90).unwrap();
        // Q, K and V together, and a matrix alone.
        let shapes = [matrix_shape(config.q_width() + 2 * config.kv_width(), 256), matrix_shape(256, 512)];
        let space = registry().space("gemv_q4_0").unwrap();
        let half = space.kernels.iter().filter(|k| k.backend == Backend::Cuda && !has_input(k.activations));
        let mut named = 0;
        for kernel in half {
            let row = |shape: &Shape| {
                let workload = Workload { op: "gemv_q4_0".to_owned(), shape: shape.clone() };
                tables::row(workload, kernel.default_variant(), kernel.layout)
            };
            let rows = shapes.iter().map(row).collect();
            let file = TableFile { rows, ..tables::table_file(tables::key("cuda", "A GPU")) };
            let table = Table::of_file(file, limits);
            let form = |shape: &Shape| table.choose("gemv_q4_0", shape).unwrap().spec.activations;
            assert!(shapes.iter().all(|shape| !has_input(form(shape))), "{}", kernel.name);
            let matrices: Vec<_> = gguf.tensors().filter(|(_, t)| t.n() > 1).collect();
            let notes = set_aside(&table, &config, &matrices);
            assert!(
                notes.len() == 2 && notes.iter().all(|n| n.contains(&kernel.name) && n.contains("f16")),
                "{notes:?}"
            );
            assert!(shapes.iter().all(|shape| has_input(form(shape))), "{}", kernel.name);
            named += 1;
        }
        assert!(named >= 2, "f16 activations on vector units and on tensor cores");
    }
}
