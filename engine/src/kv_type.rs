//! The type that keys and values are kept in, and which device keeps which.

use std::fmt;

use kernels::cpu::{self, Precision};
use serde::{Deserialize, Serialize};

use crate::generate::LoadOptions;

/// The type that keys and values are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// 16-bit floats, on every device.
    F16,
    /// 32-bit floats, on the processor.
    F32,
    /// 8-bit integers with a float scale for every position and head, on a CUDA device.
    Int8,
}

impl KvType {
    /// The name on the command line and in records.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::F32 => "f32",
            KvType::Int8 => "int8",
        }
    }

    /// Bytes that a key or value of one head takes.
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F16 => 2 * head_dim,
            KvType::F32 => 4 * head_dim,
            KvType::Int8 => head_dim + 4,
        }
    }

    /// The same for the kernels of the processor, where they have it.
    pub const fn on_cpu(self) -> Option<cpu::KvType> {
        match self {
            KvType::F16 => Some(cpu::KvType::F16),
            KvType::F32 => Some(cpu::KvType::F32),
            KvType::Int8 => None,
        }
    }

    /// Whether the kernels of CUDA have it.
    pub const fn is_on_cuda(self) -> bool {
        matches!(self, KvType::F16 | KvType::Int8)
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl LoadOptions {
    /// The type that the processor keeps keys and values in under these options.
    pub fn kv_on_cpu(&self) -> KvType {
        self.kv.unwrap_or(match self.precision {
            Precision::Exact => KvType::F32,
            Precision::Fast => KvType::F16,
        })
    }

    /// The type that a CUDA device keeps keys and values in under these options.
    pub fn kv_on_cuda(&self) -> KvType {
        self.kv.unwrap_or(KvType::F16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_a_type_of_its_own_by_default() {
        for precision in [Precision::Exact, Precision::Fast] {
            let options = LoadOptions { precision, ..LoadOptions::default() };
            assert!(options.kv_on_cpu().on_cpu().is_some() && options.kv_on_cuda().is_on_cuda());
            assert_eq!(options.kv_on_cpu() == KvType::F32, precision == Precision::Exact);
        }
    }

    #[test]
    fn a_type_that_was_asked_for_is_never_replaced() {
        let options = LoadOptions { kv: Some(KvType::Int8), ..LoadOptions::default() };
        assert_eq!((options.kv_on_cpu(), options.kv_on_cuda()), (KvType::Int8, KvType::Int8));
        assert!(KvType::Int8.on_cpu().is_none() && !KvType::F32.is_on_cuda());
    }
}
