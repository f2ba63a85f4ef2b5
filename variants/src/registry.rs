//! The built-in spaces, embedded and parsed once.

use std::sync::OnceLock;

use harness_spec::DType;

use crate::{KernelSpec, Space};

const FILES: [(&str, &str); 15] = [
    ("argmax", include_str!("../spaces/argmax.toml")),
    ("attention", include_str!("../spaces/attention.toml")),
    ("gemv_bf16", include_str!("../spaces/gemv_bf16.toml")),
    ("gemv_f16", include_str!("../spaces/gemv_f16.toml")),
    ("gemv_f32", include_str!("../spaces/gemv_f32.toml")),
    ("gemv_q4_0", include_str!("../spaces/gemv_q4_0.toml")),
    ("gemv_q4_1", include_str!("../spaces/gemv_q4_1.toml")),
    ("gemv_q4_k", include_str!("../spaces/gemv_q4_k.toml")),
    ("gemv_q5_0", include_str!("../spaces/gemv_q5_0.toml")),
    ("gemv_q5_k", include_str!("../spaces/gemv_q5_k.toml")),
    ("gemv_q6_k", include_str!("../spaces/gemv_q6_k.toml")),
    ("gemv_q8_0", include_str!("../spaces/gemv_q8_0.toml")),
    ("gemv_ternary", include_str!("../spaces/gemv_ternary.toml")),
    ("norm", include_str!("../spaces/norm.toml")),
    ("rope", include_str!("../spaces/rope.toml")),
];

/// Every built-in space.
#[derive(Debug)]
pub struct Registry {
    spaces: Vec<Space>,
}

impl Registry {
    /// The spaces in alphabetic order of their ops.
    pub fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    /// The space of this op.
    pub fn space(&self, op: &str) -> Option<&Space> {
        self.spaces.iter().find(|s| s.op == op)
    }

    /// The space whose kernels multiply weights of this type.
    pub fn gemv(&self, dtype: DType) -> &Space {
        self.space(gemv_op(dtype)).expect("a test proves that every type has a space")
    }

    /// Every kernel with its op.
    pub fn kernels(&self) -> impl Iterator<Item = (&str, &KernelSpec)> {
        self.spaces.iter().flat_map(|s| s.kernels.iter().map(move |k| (s.op.as_str(), k)))
    }
}

/// The op that multiplies weights of this type. One token or many: a matrix has one layout, so its kernel serves both.
pub const fn gemv_op(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "gemv_f32",
        DType::F16 => "gemv_f16",
        DType::BF16 => "gemv_bf16",
        DType::Q4_0 => "gemv_q4_0",
        DType::Q4_1 => "gemv_q4_1",
        DType::Q5_0 => "gemv_q5_0",
        DType::Q8_0 => "gemv_q8_0",
        DType::Q4K => "gemv_q4_k",
        DType::Q5K => "gemv_q5_k",
        DType::Q6K => "gemv_q6_k",
        DType::TQ1_0 | DType::TQ2_0 => "gemv_ternary",
    }
}

/// The built-in registry.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry {
        spaces: FILES
            .iter()
            .map(|(op, text)| {
                let space: Space = toml::from_str(text).expect("a test proves that every embedded space parses");
                assert_eq!(&space.op, op, "a space is named after its file");
                space
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_space_parses_and_has_one_baseline_for_each_of_its_types() {
        for space in registry().spaces() {
            let plain: Vec<_> = space.kernels.iter().filter(|k| k.baseline).collect();
            assert!(plain.iter().all(|k| k.isa == Isa::Scalar), "{}: a baseline must run anywhere", space.op);
            if space.op.starts_with("gemv_") {
                for dtype in space.kernels.iter().flat_map(|k| &k.dtypes) {
                    assert_eq!(plain.iter().filter(|k| k.dtypes.contains(dtype)).count(), 1, "{} {dtype}", space.op);
                }
            } else {
                assert_eq!(plain.len(), 1, "{}", space.op);
            }
        }
    }

    #[test]
    fn every_weight_type_has_a_space_that_takes_it() {
        for dtype in DType::ALL {
            assert!(registry().gemv(dtype).kernels.iter().any(|k| k.dtypes.contains(&dtype)), "{dtype}");
        }
    }

    #[test]
    fn every_space_file_on_disk_is_embedded() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/spaces");
        let mut on_disk: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        on_disk.sort();
        let embedded: Vec<_> = registry().spaces().iter().map(|s| s.op.clone()).collect();
        assert_eq!(on_disk, embedded);
    }
}
