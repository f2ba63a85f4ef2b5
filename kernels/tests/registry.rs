//! The registry is complete (R1): what the spaces list has a contract, a source and a hash.

use std::collections::{BTreeMap, BTreeSet};

use kernels::cuda::compile::{Origin, load};
use kernels::op::{op, ops};
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
    for (_, kernel) in registry().kernels().filter(|(_, k)| k.backend == Backend::Cuda) {
        let source = load(&Origin::BuiltIn(kernel.source.clone())).unwrap_or_else(|e| panic!("{}: {e}", kernel.id()));
        let headers = source.headers.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        if let Some(other) = hashes.insert(kernel.content_hash(&source.text, headers), kernel.id()) {
            panic!("{} and {other} are the same kernel", kernel.id());
        }
    }
    assert!(!hashes.is_empty());
}
