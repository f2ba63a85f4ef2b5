//! What the engine launches on a GPU for a model: the fused ops of a token, and the ops of a prompt.
//!
//! The same rules as in the engine's `cuda::decode`: a product is fused where its matrices have one type that fused kernels
//! read, and what none of them takes runs as single ops. Attention of a token is chosen by classes of lengths; the room
//! of the context chooses nothing.

use std::collections::BTreeSet;

use engine::cuda::fused_forms;
use harness_spec::{DType, Workload};
use kernels::cuda::exec::LengthClass;
use variants::{Activations, gemv_op};

use super::ModelEntry;
use super::derive::{Derived, Dims, LENGTH, MAX_LEN, Matrix, Quant, Role, push, wanted};

/// Tokens of a prompt that the engine takes at once.
const PROMPT: u64 = 512;
/// Bits of keys and values.
const KV: u64 = 16;

/// The type, where fused kernels read it.
fn fusible(quant: Quant) -> Option<DType> {
    match quant {
        Quant::Type(t) => fused_forms(t).map(|_| t),
        Quant::G128 => None,
    }
}

/// Bits of the activations that the products of these matrices take: codes where a fused kernel multiplies codes.
fn bits_into(types: &[(Quant, u64)]) -> u64 {
    types.iter().filter_map(|(q, _)| fusible(*q)).map(bits).min().unwrap_or(32)
}

/// Bits of the activations that fused kernels on weights of a type leave for each other and take.
fn bits(dtype: DType) -> u64 {
    match fused_forms(dtype) {
        Some((_, Activations::A8)) => 8,
        _ => 32,
    }
}

/// `gate_up_q4_0` of Q4_0.
fn op(family: &str, dtype: DType) -> String {
    format!("{family}_{}", gemv_op(dtype).trim_start_matches("gemv_"))
}

/// Launches in one token of matrices that take the same input and have this type together.
fn together(parts: &[Vec<(Quant, u64)>], dtype: DType) -> u64 {
    let count =
        |part: &Vec<(Quant, u64)>| part.iter().filter(|(q, _)| fusible(*q) == Some(dtype)).map(|(_, n)| n).sum();
    parts.iter().map(count).min().unwrap_or(0)
}

/// The types of the matrices of a name, each with how many there are.
fn types(matrices: &[Matrix], name: &str, body: &[Quant]) -> Vec<(Quant, u64)> {
    let of = matrices.iter().filter(|m| m.name == name);
    of.flat_map(|m| match m.quant {
        Some(own) if body.is_empty() => vec![(own, m.count)],
        _ if body.is_empty() => vec![(Quant::Type(DType::Q4_0), m.count)],
        _ => body.iter().map(|q| (*q, m.count)).collect(),
    })
    .collect()
}

/// What is launched as single ops where the others are fused.
pub(super) struct Singles {
    layers: u64,
    /// Blocks whose matrices take their input together in one launch, by type.
    qkv: Vec<(DType, u64)>,
    gate_up: Vec<(DType, u64)>,
    /// Blocks whose product is added to the residual stream where it is computed.
    o: u64,
    down: u64,
}

impl Singles {
    /// Of a model with these matrices; `body` as in [`add`].
    pub fn of(d: &Dims, matrices: &[Matrix], body: &[Quant]) -> Singles {
        let of = |name: &str| types(matrices, name, body);
        let by_type = |parts: &[Vec<(Quant, u64)>]| -> Vec<(DType, u64)> {
            DType::ALL.into_iter().map(|t| (t, together(parts, t))).filter(|(_, n)| *n > 0).collect()
        };
        let added = |name: &str| by_type(&[of(name)]).iter().map(|(_, n)| n).sum::<u64>().min(d.layers);
        let qkv = if d.head_norms { Vec::new() } else { by_type(&[of("attn_q"), of("attn_k"), of("attn_v")]) };
        let down = added("ffn_down");
        let mut gate_up = by_type(&[of("ffn_gate"), of("ffn_up")]);
        gate_up.retain(|(t, _)| bits(*t) == bits_into(&of("ffn_down")));
        Singles { layers: d.layers, qkv, gate_up, o: added("attn_output"), down }
    }

    /// Products of a matrix of this type, of which there are so many, that are launched by themselves.
    pub fn products(&self, role: Role, quant: Quant, count: u64) -> u64 {
        let Some(dtype) = fusible(quant) else { return if role == Role::Head { 0 } else { count } };
        let of = |fused: &[(DType, u64)]| fused.iter().find(|(t, _)| *t == dtype).map_or(0, |(_, n)| *n);
        match role {
            Role::Qkv => count.saturating_sub(of(&self.qkv)),
            Role::GateUp => count.saturating_sub(of(&self.gate_up)),
            Role::O | Role::Down | Role::Head | Role::Attention | Role::Norm | Role::Quantize => 0,
        }
    }

    /// Blocks in which Q, K and V, and those in which gate and up, are not fused with the norm of their input.
    fn not_fused(&self) -> [u64; 2] {
        [&self.qkv, &self.gate_up].map(|f| self.layers.saturating_sub(f.iter().map(|(_, n)| n).sum()))
    }

    /// Norms of a token; the last one is fused with the head.
    pub fn norms(&self) -> u64 {
        self.not_fused().iter().sum()
    }

    /// Inputs that are quantised by themselves: of Q, K, V, gate and up, of the projection out of attention, and of down.
    pub fn inputs(&self) -> [u64; 3] {
        [self.norms(), self.layers - self.o, self.layers - self.down]
    }
}

/// Adds the ops to what a model comes to. `body` are the types of the command line, `head` that of the head.
pub(super) fn add(
    out: &mut Derived,
    entry: &ModelEntry,
    d: &Dims,
    matrices: &[Matrix],
    body: &[Quant],
    head: Option<Quant>,
) {
    let of = |name: &str| types(matrices, name, body);
    let (q_width, kv_width) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
    let heads = [("HEADS", d.heads), ("KV_HEADS", d.kv_heads), ("DIM", d.head_dim)];
    let mut add = |role: Role, op: &str, dims: &[(&str, u64)], name: &str, count: u64| {
        if wanted(entry, role) && count > 0 {
            push(out, entry, Workload::of(op, dims.iter().copied()), name, count);
        }
    };
    let all: Vec<DType> = DType::ALL.into_iter().collect();
    let qkv = [of("attn_q"), of("attn_k"), of("attn_v")];
    let mut fused = 0;
    for &t in &all {
        let count = if d.head_norms { 0 } else { together(&qkv, t) };
        fused += count;
        let rest = [("K", d.hidden), ("MAX_LEN", MAX_LEN), ("KV", KV), ("PAIRING", u64::from(d.adjacent))];
        add(Role::Qkv, &op("qkv_rope", t), &[&heads[..], &rest].concat(), "attn_qkv", count);
    }
    let append = |m: u64| {
        let rest =
            [("ROT", d.head_dim), ("M", m), ("MAX_LEN", MAX_LEN), ("KV", KV), ("PAIRING", u64::from(d.adjacent))];
        [&heads[..], &rest].concat()
    };
    add(Role::Qkv, "rope_append", &append(1), "rotation", d.layers.saturating_sub(fused));
    let out_bits = bits_into(&of("attn_output"));
    // Lengths of a class share a row, and its shape names one of them.
    let lengths = if entry.lengths.is_empty() { vec![LENGTH] } else { entry.lengths.clone() };
    let classes: BTreeSet<usize> = lengths.iter().map(|&len| LengthClass::of(len as usize).key()).collect();
    for len in classes.into_iter().map(|len| len as u64) {
        let rest = [("LEN", len), ("MAX_LEN", MAX_LEN.max(len)), ("KV", KV), ("OUT", out_bits)];
        add(Role::Attention, "attn_token", &[&heads[..], &rest].concat(), "attention", d.layers);
    }
    for (role, name, k) in [(Role::O, "attn_output", q_width), (Role::Down, "ffn_down", d.inter)] {
        for &t in &all {
            let count = together(&[of(name)], t);
            add(role, &op("gemv_add", t), &[("N", d.hidden), ("K", k)], name, count);
            let prompt = [("N", d.hidden), ("K", k), ("M", PROMPT)];
            add(role, &op("gemm", t), &prompt, name, count);
        }
    }
    let gate_up = [of("ffn_gate"), of("ffn_up")];
    let inner_bits = bits_into(&of("ffn_down"));
    let mut fused = 0;
    for &t in &all {
        let count = together(&gate_up, t);
        // It leaves its output in the form of its own kernels.
        let count_fused = if bits(t) == inner_bits { count } else { 0 };
        fused += count_fused;
        add(Role::GateUp, &op("gate_up", t), &[("F", d.inter), ("K", d.hidden)], "ffn_gate_up", count_fused);
        let prompt = [("N", 2 * d.inter), ("K", d.hidden), ("M", PROMPT)];
        add(Role::GateUp, &op("gemm", t), &prompt, "ffn_gate_up", count);
        let prompt = [("N", q_width + 2 * kv_width), ("K", d.hidden), ("M", PROMPT)];
        add(Role::Qkv, &op("gemm", t), &prompt, "attn_qkv", together(&qkv, t));
    }
    let swiglu = [("F", d.inter), ("M", 1), ("OUT", inner_bits)];
    add(Role::GateUp, "swiglu", &swiglu, "activation", d.layers.saturating_sub(fused));
    if let Some(Quant::Type(t)) = head {
        add(Role::Head, &op("norm_logits", t), &[("N", d.vocab), ("K", d.hidden)], "output", 1);
    }
    add(Role::Qkv, "rope_append", &append(PROMPT), "rotation of a prompt", d.layers);
    let rest = [("M", PROMPT), ("POS", 0), ("MAX_LEN", MAX_LEN), ("KV", KV)];
    add(Role::Attention, "attn_prefill", &[&heads[..], &rest].concat(), "attention of a prompt", d.layers);
    let swiglu = [("F", d.inter), ("M", PROMPT), ("OUT", 16)];
    add(Role::GateUp, "swiglu", &swiglu, "activation of a prompt", d.layers);
    add(Role::Norm, "rmsnorm_half", &[("K", d.hidden), ("M", PROMPT)], "norms of a prompt", 2 * d.layers);
}

#[cfg(test)]
mod tests {
    use super::super::derive;
    use super::*;

    fn ops(entry: &ModelEntry) -> Vec<(String, u64)> {
        let all = derive(entry).unwrap().workloads;
        all.into_iter().map(|w| (w.workload.to_string(), w.per_token)).collect()
    }

    fn fused(model: &str) -> ModelEntry {
        ModelEntry { fused: true, ..ModelEntry::of(model) }
    }

    #[test]
    fn a_token_of_a_model_of_one_type_is_five_launches_a_block_and_the_head() {
        let all = ops(&fused("llama-3.1-8b"));
        for want in [
            ("qkv_rope_q4_0 DIM=128 HEADS=32 K=4096 KV=16 KV_HEADS=8 MAX_LEN=4096 PAIRING=1", 32),
            ("attn_token DIM=128 HEADS=32 KV=16 KV_HEADS=8 LEN=512 MAX_LEN=4096 OUT=8", 32),
            ("gemv_add_q4_0 K=4096 N=4096", 32),
            ("gate_up_q4_0 F=14336 K=4096", 32),
            ("gemv_add_q4_0 K=14336 N=4096", 32),
            ("norm_logits_q6_k K=4096 N=128256", 1),
            ("gemm_q4_0 K=4096 M=512 N=6144", 32),
            ("attn_prefill DIM=128 HEADS=32 KV=16 KV_HEADS=8 M=512 MAX_LEN=4096 POS=0", 32),
        ] {
            assert!(all.contains(&(want.0.to_owned(), want.1)), "{want:?} in {all:#?}");
        }
        // Nothing is left for the ops that run where a fused one does not.
        assert!(!all.iter().any(|(w, _)| w.starts_with("rope_append") && w.contains(" M=1 ")), "{all:?}");
    }

    #[test]
    fn norms_of_heads_and_types_that_no_fused_kernel_reads_run_as_single_ops() {
        let all = ops(&fused("qwen3-0.6b"));
        assert!(!all.iter().any(|(w, _)| w.starts_with("qkv_rope")), "{all:?}");
        assert!(all.iter().any(|(w, n)| w.starts_with("rope_append") && w.contains(" M=1 ") && *n == 28), "{all:?}");
        let ternary = ModelEntry { quants: vec!["ternary".into()], ..fused("llama-3.1-8b") };
        let all = ops(&ternary);
        assert!(all.iter().any(|(w, _)| w.starts_with("attn_token") && w.ends_with("OUT=32")), "{all:?}");
        assert!(!all.iter().any(|(w, _)| w.starts_with("gate_up") || w.starts_with("gemv_add")), "{all:?}");
    }

    #[test]
    fn floats_are_fused_too_and_leave_floats_for_each_other() {
        for float in ["f16", "bf16"] {
            let all = ops(&ModelEntry { quants: vec![float.into()], ..fused("qwen2.5-1.5b") });
            for (op, end, count) in [
                ("qkv_rope", "PAIRING=0", 28),
                ("attn_token", "OUT=32", 28),
                ("gate_up", "K=1536", 28),
                ("gemv_add", "K=1536 N=1536", 28),
                ("norm_logits", "N=151936", 1),
                ("gemm", "K=8960 M=512 N=1536", 28),
            ] {
                let found = |(w, n): &(String, u64)| w.starts_with(op) && w.ends_with(end) && *n == count;
                assert!(all.iter().any(found), "{op} of {float}: {all:#?}");
            }
            let single = |w: &str| w.starts_with("gemv_f16") || w.starts_with("gemv_bf16");
            assert!(all.iter().all(|(w, n)| !single(w) || *n == 0), "{all:#?}");
            assert!(!all.iter().any(|(w, _)| w.starts_with("swiglu") && w.contains(" M=1 ")), "{all:#?}");
        }
    }

    #[test]
    fn lengths_of_a_class_are_one_workload_and_single_ops_in_whose_place_one_is_fused_have_no_launch() {
        let all = ops(&ModelEntry { lengths: vec![100, 512, 1000, 3000], ..fused("qwen2.5-1.5b") });
        let attention: Vec<_> = all.iter().filter(|(w, _)| w.starts_with("attn_token")).collect();
        assert_eq!(attention.len(), 2, "{attention:?}");
        assert!(attention[0].0.contains(" LEN=512 ") && attention[1].0.contains(" LEN=2048 "), "{attention:?}");
        let none =
            |all: &[(String, u64)], op: &str| all.iter().filter(|(w, _)| w.starts_with(op)).all(|(_, n)| *n == 0);
        for op in ["gemv_q4_0", "gemv_q6_k", "logits", "attn_decode", "rmsnorm ", "quantize_a8"] {
            assert!(none(&all, op), "{op} in {all:#?}");
        }
        // Heads with norms keep Q, K and V apart; ternary weights keep everything apart but the head.
        let apart = ops(&fused("qwen3-0.6b"));
        assert!(apart.contains(&("rmsnorm K=1024 M=1".to_owned(), 28)), "{apart:#?}");
        let ternary = ops(&ModelEntry { quants: vec!["ternary".into()], ..fused("llama-3.1-8b") });
        assert!(!none(&ternary, "gemv_ternary K=14336") && none(&ternary, "attn_decode"), "{ternary:#?}");
        // On a processor nothing is fused.
        assert!(!none(&ops(&ModelEntry::of("qwen2.5-1.5b")), "gemv_q4_0"));
    }

    #[test]
    fn every_op_is_one_that_the_registry_has_with_these_dimensions() {
        for model in ["smollm2-135m", "qwen2.5-1.5b", "qwen3-0.6b", "llama-3.1-8b"] {
            for w in derive(&fused(model)).unwrap().workloads {
                let contract = kernels::op::op(&w.workload.op).unwrap_or_else(|| panic!("no op {}", w.workload));
                let dims: Vec<&str> = w.workload.shape.0.keys().map(String::as_str).collect();
                assert!(dims.iter().all(|d| contract.dims().contains(d)), "{} has not {dims:?}", w.workload.op);
            }
        }
    }

    #[test]
    fn a_suite_without_them_is_what_it_was() {
        let plain = ops(&ModelEntry::of("llama-3.1-8b"));
        let with = ops(&fused("llama-3.1-8b"));
        let named = |all: &[(String, u64)], name: &str| all.iter().any(|(w, _)| w == name);
        assert!(plain.iter().all(|(w, _)| named(&with, w)) && with.len() > plain.len());
        assert!(!plain.iter().any(|(w, _)| w.starts_with("qkv_rope") || w.starts_with("gemm")));
    }
}
