//! The parity manifest: what both sides must share before a comparison means anything (MEASURING.md §8).
//!
//! Each side's values are collected into a [`Shape`], each with a word on where it comes from; [`compare`] holds them
//! against each other. A field that decides parity and is unequal or unknown forbids a verdict.

pub mod known;

use std::collections::BTreeMap;

use harness_spec::record::{ManifestField, ManifestStatus};

/// A field of the manifest, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// SHA-256 of the GGUF file.
    WeightsDigest,
    /// Tensors by type.
    TensorTypes,
    /// Bits a weight.
    BitsPerWeight,
    /// Context length.
    Context,
    /// Type of cached keys and values.
    KvType,
    /// Parallel slots.
    Slots,
    /// Layers on a GPU.
    GpuLayers,
    /// Sampler.
    Sampler,
    /// When a request ends.
    StopRule,
    /// Token ids of the prompts.
    PromptIds,
    /// Tokenizer.
    Tokenizer,
    /// Whether a BOS token is added.
    Bos,
    /// Reasoning output.
    Thinking,
    /// Speculative decoding.
    Speculation,
    /// Reuse of cached prompts.
    PrefixCache,
    /// Threads.
    Threads,
    /// Machine and boot.
    Machine,
    /// How attention is computed.
    FlashAttention,
    /// Tokens of a prompt processed at once.
    BatchSize,
    /// GPU and its driver.
    Gpu,
    /// Version of the server.
    Version,
    /// Command line.
    Flags,
    /// Environment variables that the server reads.
    Environment,
}

impl Field {
    /// Every field, `weights digest` first.
    pub const ALL: [Field; 23] = [
        Field::WeightsDigest,
        Field::TensorTypes,
        Field::BitsPerWeight,
        Field::Context,
        Field::KvType,
        Field::Slots,
        Field::GpuLayers,
        Field::Sampler,
        Field::StopRule,
        Field::PromptIds,
        Field::Tokenizer,
        Field::Bos,
        Field::Thinking,
        Field::Speculation,
        Field::PrefixCache,
        Field::Threads,
        Field::Machine,
        Field::FlashAttention,
        Field::BatchSize,
        Field::Gpu,
        Field::Version,
        Field::Flags,
        Field::Environment,
    ];

    /// The name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Field::WeightsDigest => "weights digest",
            Field::TensorTypes => "tensor types",
            Field::BitsPerWeight => "bits a weight",
            Field::Context => "context length",
            Field::KvType => "KV type",
            Field::Slots => "parallel slots",
            Field::GpuLayers => "GPU layers",
            Field::Sampler => "sampler",
            Field::StopRule => "stop rule",
            Field::PromptIds => "prompt ids",
            Field::Tokenizer => "tokenizer",
            Field::Bos => "BOS",
            Field::Thinking => "thinking",
            Field::Speculation => "speculation",
            Field::PrefixCache => "prefix cache",
            Field::Threads => "threads",
            Field::Machine => "machine and boot",
            Field::FlashAttention => "flash attention",
            Field::BatchSize => "batch size",
            Field::Gpu => "GPU",
            Field::Version => "version",
            Field::Flags => "flags",
            Field::Environment => "environment",
        }
    }

    /// Whether a difference forbids a verdict.
    ///
    /// What a server is asked to do decides: weights, prompt, sampler, context, threads, machine. How it does it,
    /// which is what the comparison is about, is recorded only: its way of attention, its prefill batches, its
    /// version and flags. The GPU is recorded because `GPU layers` already says whether a side uses it. Threads
    /// decide but for [`compare`]'s exception.
    pub const fn decides(self) -> bool {
        !matches!(
            self,
            Field::FlashAttention | Field::BatchSize | Field::Gpu | Field::Version | Field::Flags | Field::Environment
        )
    }
}

/// A value with where it comes from, or why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The value.
    pub value: Option<String>,
    /// The source, or the reason.
    pub how: String,
}

impl Known {
    /// A known value.
    pub fn is(value: impl ToString, how: impl Into<String>) -> Known {
        Known { value: Some(value.to_string()), how: how.into() }
    }

    /// An unknown one.
    pub fn unknown(why: impl Into<String>) -> Known {
        Known { value: None, how: why.into() }
    }

    /// Known or not.
    pub fn maybe(value: Option<impl ToString>, how: &str, why_not: &str) -> Known {
        match value {
            Some(v) => Known::is(v, how),
            None => Known::unknown(why_not),
        }
    }
}

/// All that is known of one side.
pub type Shape = BTreeMap<Field, Known>;

/// The value of [`Field::GpuLayers`] for a model that is on a GPU as a whole.
pub const ALL_LAYERS: &str = "all";

/// Holds two sides against each other, field by field.
///
/// Where the whole model is on a GPU on both sides, no thread of a processor computes any of it: their number is
/// recorded, and no difference of it forbids a verdict.
pub fn compare(engine: &Shape, peer: &Shape) -> Vec<ManifestField> {
    let on_gpu = |side: &Shape| side.get(&Field::GpuLayers).and_then(|k| k.value.as_deref()) == Some(ALL_LAYERS);
    let no_threads_compute = on_gpu(engine) && on_gpu(peer);
    Field::ALL
        .into_iter()
        .map(|field| {
            let absent = Known::unknown("not collected");
            let (e, p) = (engine.get(&field).unwrap_or(&absent), peer.get(&field).unwrap_or(&absent));
            let idle = field == Field::Threads && no_threads_compute;
            let status = match (&e.value, &p.value) {
                _ if !field.decides() || idle => ManifestStatus::Info,
                (Some(a), Some(b)) if a == b => ManifestStatus::Equal,
                (Some(_), Some(_)) => ManifestStatus::Mismatch,
                _ => ManifestStatus::Unknown,
            };
            let how = match idle {
                true => format!("{}; no part of the work, as both sides have every layer on the GPU", p.how),
                false => p.how.clone(),
            };
            ManifestField { name: field.name().to_owned(), engine: e.value.clone(), peer: p.value.clone(), status, how }
        })
        .collect()
}

/// Why no verdict may be given; `None` where both sides agree in everything that decides.
pub fn withhold(manifest: &[ManifestField]) -> Option<String> {
    let of =
        |status| -> Vec<&str> { manifest.iter().filter(|f| f.status == status).map(|f| f.name.as_str()).collect() };
    let (unequal, unknown) = (of(ManifestStatus::Mismatch), of(ManifestStatus::Unknown));
    let mut parts = Vec::new();
    if !unequal.is_empty() {
        parts.push(format!("the sides differ in {}", unequal.join(", ")));
    }
    if !unknown.is_empty() {
        parts.push(format!("the peer's {} cannot be known", unknown.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Field::ALL.into_iter().map(|f| (f, Known::is("x", "a test"))).collect()
    }

    #[test]
    fn equal_sides_may_be_judged_and_the_digest_comes_first() {
        let m = compare(&shape(), &shape());
        assert_eq!(m[0].name, "weights digest");
        assert_eq!(m.len(), Field::ALL.len());
        assert_eq!(withhold(&m), None);
    }

    #[test]
    fn each_unequal_field_forbids_a_verdict_if_it_decides() {
        for field in Field::ALL {
            let mut peer = shape();
            peer.insert(field, Known::is("y", "a test"));
            let m = compare(&shape(), &peer);
            let why = withhold(&m);
            assert_eq!(why.is_some(), field.decides(), "{field:?}");
            if let Some(why) = why {
                assert!(why.contains(field.name()) && why.contains("differ"), "{why}");
            }
        }
    }

    #[test]
    fn each_unknown_field_forbids_a_verdict_if_it_decides() {
        for field in Field::ALL {
            let mut peer = shape();
            peer.insert(field, Known::unknown("the server does not say"));
            let m = compare(&shape(), &peer);
            assert_eq!(withhold(&m).is_some(), field.decides(), "{field:?}");
            let shown = m.iter().find(|f| f.name == field.name()).unwrap();
            assert_eq!(shown.how, "the server does not say");
        }
    }

    #[test]
    fn threads_decide_unless_the_whole_model_is_on_a_gpu_on_both_sides() {
        let with = |layers: &str, threads: Known| {
            let mut side = shape();
            side.insert(Field::GpuLayers, Known::is(layers, "a test"));
            side.insert(Field::Threads, threads);
            side
        };
        let (two, unknown) = (|| Known::is(2, "a test"), || Known::unknown("the line has no -t"));
        let on_gpu = compare(&with(ALL_LAYERS, two()), &with(ALL_LAYERS, unknown()));
        assert_eq!(withhold(&on_gpu), None);
        let threads = on_gpu.iter().find(|f| f.name == "threads").unwrap();
        assert_eq!((threads.status, threads.peer.as_deref()), (ManifestStatus::Info, None));
        assert!(threads.how.starts_with("the line has no -t; no part of the work"), "{}", threads.how);
        for (ours, theirs) in [("0", "0"), (ALL_LAYERS, "0"), (ALL_LAYERS, "part (1 of 2 bytes)")] {
            let why = withhold(&compare(&with(ours, two()), &with(theirs, unknown()))).unwrap();
            assert!(why.contains("threads"), "{ours}, {theirs}: {why}");
        }
    }

    #[test]
    fn a_field_that_was_not_collected_counts_as_unknown() {
        let mut peer = shape();
        peer.remove(&Field::KvType);
        assert!(withhold(&compare(&shape(), &peer)).unwrap().contains("KV type"));
    }

    #[test]
    fn two_unknown_sides_are_not_equal() {
        let mut one = shape();
        one.insert(Field::Slots, Known::unknown("no"));
        assert!(withhold(&compare(&one, &one)).is_some());
    }
}
