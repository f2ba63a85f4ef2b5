//! What decides the machine code of a variant: the text of its sources, for the keys of results (MEASURING.md §10).

use harness_spec::{Shape, VariantId};
use sha2::{Digest, Sha256};
use variants::KernelSpec;

macro_rules! texts {
    ($($path:literal),* $(,)?) => {
        [$((concat!("src/", $path), include_str!(concat!("../", $path)))),*]
    };
}

/// Files that every kernel goes through, and the one that times it: what a wrong one measured must not be found again.
const SHARED: [(&str, &str); 7] = texts![
    "gemv/mod.rs",
    "gemv/tile.rs",
    "cpu/act.rs",
    "cpu/matmul.rs",
    "cpu/pool.rs",
    "cpu/shares.rs",
    "cpu/target.rs",
];

/// The files that spaces name, and what those include.
const KERNELS: [(&str, &str); 24] = texts![
    "gemv/plain.rs",
    "gemv/dequant_avx2.rs",
    "gemv/dequant_avx512.rs",
    "gemv/g128.rs",
    "gemv/lut_avx2.rs",
    "gemv/avx2.rs",
    "gemv/avx2/k_quants.rs",
    "gemv/avx2/ternary.rs",
    "gemv/vnni.rs",
    "gemv/vnni/k_quants.rs",
    "gemv/vnni/ternary.rs",
    "gemv/neon.rs",
    "norm/mod.rs",
    "norm/plain.rs",
    "norm/avx2.rs",
    "norm/avx512.rs",
    "attention/mod.rs",
    "attention/kv.rs",
    "attention/plain.rs",
    "attention/avx2.rs",
    "attention/avx512.rs",
    "argmax.rs",
    "rope.rs",
    "cpu/stream.rs",
];

/// The text of a source that a space names.
pub(super) fn text(source: &str) -> Option<&'static str> {
    KERNELS.iter().find(|(path, _)| *path == source).map(|(_, text)| *text)
}

/// The hash of the sources behind a variant, of the variant and of the shape. `None` where the source is not one of this
/// build.
pub(super) fn key(spec: &KernelSpec, variant: &VariantId, shape: &Shape) -> Option<String> {
    let mut hash = Sha256::new();
    let family = spec.source.split('/').nth(1).unwrap_or_default();
    hash.update(text(&spec.source)?);
    for (path, text) in SHARED.iter().chain(&KERNELS) {
        // The parents of a family hold helpers of its members: `gemv/vnni.rs` those of `gemv/vnni/ternary.rs`.
        let parent = path.strip_suffix(".rs").is_some_and(|stem| spec.source.starts_with(&format!("{stem}/")));
        let module = *path == format!("src/{family}/mod.rs");
        if parent || module || SHARED.iter().any(|(shared, _)| shared == path) {
            hash.update(text);
        }
    }
    let level = if cfg!(debug_assertions) { "debug" } else { "release" };
    for part in [variant.to_string(), shape.to_string(), level.to_owned()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Some(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use variants::Backend;

    use super::*;

    #[test]
    fn every_kernel_of_the_processor_has_its_source_in_the_key() {
        for (op, kernel) in variants::registry().kernels().filter(|(_, k)| k.backend == Backend::Cpu) {
            assert!(text(&kernel.source).is_some(), "{op}/{}: {}", kernel.name, kernel.source);
        }
    }

    #[test]
    fn keys_differ_by_variant_and_shape() {
        let spec = &variants::registry().space("gemv_q4_0").unwrap().kernels[0];
        let of = |variant: &str, n| key(spec, &variant.parse().unwrap(), &Shape::of([("N", n), ("K", 64)])).unwrap();
        let keys = [of("gemv_q4_0/plain@cpu", 1), of("gemv_q4_0/plain[A=1]@cpu", 1), of("gemv_q4_0/plain@cpu", 2)];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
