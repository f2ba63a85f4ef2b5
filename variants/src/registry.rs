//! The registry: the built-in spaces, embedded and parsed once, and those of a user's folders.

use std::path::Path;
use std::sync::OnceLock;

use harness_spec::{DType, VariantId};

use crate::space::SpaceError;
use crate::{KernelSpec, Space, formats};

macro_rules! embedded {
    ($($op:literal),* $(,)?) => {
        &[$(($op, include_str!(concat!("../spaces/", $op, ".toml")))),*]
    };
}

const FILES: &[(&str, &str)] = embedded![
    "add",
    "argmax",
    "attn_decode",
    "attn_prefill",
    "attn_token",
    "gemv_bf16",
    "gemv_f16",
    "gemv_f32",
    "gemv_g128",
    "gemv_q4_0",
    "gemv_q4_1",
    "gemv_q4_k",
    "gemv_q5_0",
    "gemv_q5_k",
    "gemv_q6_k",
    "gemv_q8_0",
    "gemv_ternary",
    "logits_q6_k",
    "logits_q8_0",
    "quantize_a8",
    "rmsnorm",
    "rmsnorm_half",
    "rope",
    "rope_append",
    "sample",
    "stream_read",
    "swiglu",
];

/// Spaces that list the kernels of an op for each of several weight types; see [`crate::formats`].
const OF_FORMATS: &[(&str, &str)] =
    embedded!["dequantize", "embed", "gate_up", "gemm", "gemv_add", "norm_logits", "qkv_rope", "rmsnorm_gemv"];

/// Spaces by op.
#[derive(Clone, Debug)]
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

    /// The kernel of a variant and its space; `None` where there is no such kernel, or a tunable lacks a value, has one
    /// that is not of its list, or does not exist.
    pub fn find(&self, id: &VariantId) -> Option<(&Space, &KernelSpec)> {
        let space = self.space(&id.op)?;
        space.kernels.iter().find(|k| k.is_kernel_of(id)).map(|kernel| (space, kernel))
    }

    /// Adds the kernels of a user's folder: every `.toml` in it, each with its sources beside it. A kernel joins a
    /// built-in op and passes the same checks as a built-in one. Nothing is added where one of them fails.
    ///
    /// # Errors
    /// [`SpaceError`] names the file, the kernel and what to change.
    pub fn load_dir(&mut self, folder: &Path) -> Result<(), SpaceError> {
        self.spaces = crate::user::merged(&self.spaces, folder)?;
        Ok(())
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
    REGISTRY.get_or_init(|| {
        let parse = |file: &str, text: &str, op: &str| {
            let file = format!("variants/spaces/{file}.toml");
            let space = Space::parse(&file, text, None, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(space.op, op, "a space is named after its file");
            space
        };
        let one = FILES.iter().map(|(op, text)| parse(op, text, op));
        let many = OF_FORMATS.iter().flat_map(|(file, text)| {
            formats::expanded(text).into_iter().map(move |(name, text)| parse(file, &text, &format!("{file}_{name}")))
        });
        let mut spaces: Vec<Space> = one.chain(many).collect();
        spaces.sort_by(|a, b| a.op.cmp(&b.op));
        Registry { spaces }
    })
}
