//! The registry is complete (R1): what the spaces list has a contract, a source and a hash.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::Shape;
use kernels::cuda::compile::{Origin, load};
use kernels::op::{Arg, Depth, op, ops};
use variants::{Backend, registry};

/// Ops of the engine that are no workloads yet: their kernels are checked by the tests beside them.
const WITHOUT_CONTRACT: [&str; 2] = ["argmax", "rope"];

#[test]
fn every_space_has_a_contract_of_the_same_dimensions_and_every_contract_a_space() {
    for space in registry().spaces() {
        match op(&space.op) {
            Some(contract) => {
                let listed: BTreeSet<&str> = space.dims.iter().map(String::as_str).collect();
                let known: BTreeSet<&str> = contract.dims().iter().copied().collect();
                assert_eq!(listed, known, "{}", space.op);
            }
            None => assert!(WITHOUT_CONTRACT.contains(&space.op.as_str()), "{}: no contract", space.op),
        }
    }
    for contract in ops() {
        assert!(registry().space(contract.name()).is_some(), "{}: no space", contract.name());
    }
}

#[test]
fn every_cuda_kernel_has_its_source_embedded_and_a_content_hash_of_its_own() {
    let mut hashes = BTreeMap::new();
    for (_, kernel) in registry().kernels().filter(|(_, k)| k.backend == Backend::Cuda && !k.is_library()) {
        let source = load(&Origin::BuiltIn(kernel.source.clone())).unwrap_or_else(|e| panic!("{}: {e}", kernel.id()));
        let headers = source.headers.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        if let Some(other) = hashes.insert(kernel.content_hash(&source.text, headers), kernel.id()) {
            panic!("{} and {other} are the same kernel", kernel.id());
        }
    }
    assert!(!hashes.is_empty());
}

/// A letter for each argument that is memory: W a constant of the model, c state of which part is written late, n words that
/// stand since the token before, x any other input, y an output, s scratch.
fn memory(op_name: &str, dims: &[(&str, u64)]) -> String {
    let op = op(op_name).unwrap();
    let shape = Shape::of(dims.iter().copied());
    let spec = registry().space(op_name).unwrap().kernels.iter().find(|k| k.backend == Backend::Cuda && k.baseline);
    let problem = op.problem(&shape, &op.cases(&shape, 1, Depth::Quick)[0]);
    let kind = |arg: &Arg| match arg {
        Arg::In { weights: true, .. } => Some('W'),
        Arg::In { weights: false, .. } => Some('x'),
        Arg::State { .. } => Some('c'),
        Arg::Settled { .. } => Some('n'),
        Arg::Out(_) => Some('y'),
        Arg::Scratch { .. } => Some('s'),
        Arg::I32(_) | Arg::I64(_) | Arg::F32(_) => None,
    };
    op.arguments(&problem, spec.unwrap()).unwrap().iter().filter_map(kind).collect()
}

#[test]
fn only_constants_and_what_stands_since_the_token_before_may_be_read_before_the_wait_for_earlier_kernels() {
    // Activations are written by the kernels ahead: as W or n the gate would not write them late.
    let heads = [("HEADS", 4), ("KV_HEADS", 2), ("DIM", 64)];
    let with = |more: &[(&'static str, u64)]| [&heads[..], more].concat();
    let matrix = [("N", 32), ("K", 256)];
    let cache = [("LEN", 5), ("MAX_LEN", 8)];
    assert_eq!(memory("attn_decode", &with(&cache)), "xccysn");
    let token = with(&[&cache[..], &[("KV", 16), ("OUT", 8)]].concat());
    assert_eq!(memory("attn_token", &token), "xccysn");
    let token = with(&[&cache[..], &[("KV", 8), ("OUT", 32)]].concat());
    assert_eq!(memory("attn_token", &token), "xccccysn", "scales of an int8 cache are state too");
    assert_eq!(memory("attn_prefill", &with(&[("M", 3), ("POS", 2), ("MAX_LEN", 8), ("KV", 16)])), "xccyx");
    let append = with(&[("ROT", 64), ("M", 2), ("MAX_LEN", 8), ("KV", 8), ("PAIRING", 0)]);
    let append = memory("rope_append", &append);
    assert!(append.starts_with('x') && append.ends_with("Wxyyyyy"), "bias and norms may be missing: {append}");
    let fused = memory("qkv_rope_q4_0", &with(&[("K", 256), ("MAX_LEN", 8), ("KV", 16), ("PAIRING", 0)]));
    assert!(["WWWxWnyyy", "WWxWnyyy"].contains(&fused.as_str()), "the bias may be missing: {fused}");
    let fused = memory("qkv_rope_q4_0", &with(&[("K", 256), ("MAX_LEN", 8), ("KV", 8), ("PAIRING", 0)]));
    assert!(fused.ends_with("WxWnyyyyys"), "scales and scratch of an int8 cache: {fused}");
    assert_eq!(memory("gate_up_q4_0", &[("F", 32), ("K", 256)]), "WWxy");
    assert_eq!(memory("gemv_add_q4_0", &matrix), "Wxxy");
    assert_eq!(memory("norm_logits_q4_0", &matrix), "WWxyysx");
    assert_eq!(memory("rmsnorm_gemv_q4_0", &matrix), "WWxy");
    assert_eq!(memory("logits_q8_0", &matrix), "Wxyys");
    assert_eq!(memory("sample", &[("N", 40), ("LEN", 9)]), "xnncnyyss");
}
