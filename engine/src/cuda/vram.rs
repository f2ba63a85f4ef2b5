//! How much memory a model takes on a CUDA device, computed from its header before anything is loaded.

use std::num::NonZeroUsize;

use harness_spec::Bytes;
use kernels::layout;
use variants::Layout;

use super::{buffers, sampled};
use crate::generate::KvType;
use crate::gguf::TensorInfo;
use crate::model::{Config, EMBED, HEAD, LoadError};
use crate::smaller::{fewer_slots, shorter_context};

/// Tokens that prefill takes at once.
pub const PREFILL_TOKENS: usize = 512;

/// What is taken beside our buffers: 32 MiB of workspace by the matrix library, and code, graphs, and the rounding of
/// allocations to its pages by the driver. An allowance: neither tells beforehand.
const RESERVE: u64 = 128 << 20;

/// The same of each slot beside the first, whose graphs it has of its own. On an H200 a server of Llama-3.1-8B took 18 MiB
/// beside its buffers with one slot and 84 with 32 (`reports/published/2026-11-22-h200-engine-raw-4.txt`).
const SLOT_RESERVE: u64 = 3 << 20;

/// Allocations start at multiples of this.
const ALIGN: u64 = 256;

/// Bytes on the device, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VramNeed {
    /// Matrices in the layout of the kernels, and vectors.
    pub weights: Bytes,
    /// The embedding as the file has it, of which a token takes one row.
    pub embedding: Bytes,
    /// Keys and values of every position.
    pub kv: Bytes,
    /// Cosines and sines of every position.
    pub rope: Bytes,
    /// Activations of a batch of the prompt, which a decoded token shares, its logits, and what the choice of a token takes.
    pub decode: Bytes,
    /// The largest matrix of a block in 16 bits, for the products of a prompt.
    pub prefill: Bytes,
    /// What the driver and the matrix library take.
    pub reserve: Bytes,
}

impl VramNeed {
    /// What a model of these tensors needs with room for `context` positions in one slot.
    pub fn of<'a>(
        config: &Config,
        tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>,
        context: usize,
        kv: KvType,
    ) -> VramNeed {
        VramNeed::of_slots(config, tensors, context, kv, NonZeroUsize::MIN)
    }

    /// What a model of these tensors needs with room for `context` positions in each slot.
    pub fn of_slots<'a>(
        config: &Config,
        tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>,
        context: usize,
        kv: KvType,
        slots: NonZeroUsize,
    ) -> VramNeed {
        let (mut weights, mut embedding, mut tied_head, mut has_head) = (0, 0, 0, false);
        for (name, tensor) in tensors {
            if name == EMBED {
                embedding = aligned(tensor.span.len());
                tied_head = packed(tensor);
                continue;
            }
            has_head |= name == HEAD;
            weights += if tensor.n() > 1 { packed(tensor) } else { aligned(4 * tensor.len()) };
        }
        if !has_head {
            weights += tied_head;
        }
        let (hidden, inter) = (config.hidden, config.inter);
        let (q, joined) = (config.q_width(), config.q_width() + 2 * config.kv_width());
        // Q, K and V lie behind each other, and so do gate and up.
        let largest = (joined * hidden).max(2 * inter * hidden).max(hidden * q);
        let (buffers, own_buffers) = buffers::bytes(config);
        let own = own_buffers + sampled::bytes(config.vocab, context);
        VramNeed {
            weights: Bytes(weights),
            embedding: Bytes(embedding),
            kv: Bytes(config.kv_bytes(kv, context, slots)),
            rope: Bytes((context * config.rope.dims / 2 * 8) as u64),
            decode: Bytes((buffers - own_buffers).saturating_add(own.saturating_mul(slots.get() as u64))),
            prefill: Bytes(aligned(2 * largest)),
            reserve: Bytes(RESERVE.saturating_add(SLOT_RESERVE.saturating_mul(slots.get() as u64 - 1))),
        }
    }

    /// All of it; `u64::MAX` is more than can be counted.
    pub fn total(&self) -> Bytes {
        let parts = [self.weights, self.embedding, self.kv, self.rope, self.decode, self.prefill, self.reserve];
        Bytes(parts.iter().fold(0, |sum, part| sum.saturating_add(part.0)))
    }
}

/// The bytes of a matrix in the layout of the kernels. A type that has no layout of its own stays as the file has it.
fn packed(tensor: &TensorInfo) -> u64 {
    let bytes = layout::bytes(Layout::Planes, tensor.dtype, tensor.n(), tensor.k());
    aligned(bytes.unwrap_or(tensor.span.len()))
}

pub(super) fn aligned(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(ALIGN)
}

/// Whether a model fits what is free on a device with so many slots, before anything of it is loaded.
///
/// # Errors
/// [`LoadError::Vram`] with both numbers and what would help.
pub fn check<'a, I>(
    config: &Config,
    tensors: impl Fn() -> I,
    context: usize,
    kv: KvType,
    slots: NonZeroUsize,
    free: Bytes,
    device: &str,
) -> Result<VramNeed, LoadError>
where
    I: Iterator<Item = (&'a str, &'a TensorInfo)>,
{
    let of = |context, kv, slots| VramNeed::of_slots(config, tensors(), context, kv, slots);
    let need = of(context, kv, slots);
    if need.total().0 <= free.0 {
        return Ok(need);
    }
    let fits = |context, kv, slots| of(context, kv, slots).total().0 <= free.0;
    let fewer = fewer_slots(slots, |fewer| fits(context, kv, fewer));
    let shorter = |slots| shorter_context(context, |ctx| fits(ctx, kv, slots));
    let advice = |slots| match kv != KvType::Int8 && fits(context, KvType::Int8, slots) {
        true => Some("--kv int8 fits; or take a smaller --ctx, a smaller model, or --device cpu".to_owned()),
        false => shorter(slots).map(|ctx| format!("--ctx {ctx} fits; or take a smaller model, or --device cpu")),
    };
    let fix = match fewer {
        Some(fewer) => format!("--parallel {fewer} fits; or take a smaller --ctx, a smaller model, or --device cpu"),
        None => advice(slots)
            .or_else(|| advice(NonZeroUsize::MIN).map(|fix| format!("--parallel 1 with {fix}")))
            .unwrap_or_else(|| "no --ctx and no --kv makes it fit: take a smaller model, or --device cpu".to_owned()),
    };
    Err(LoadError::Vram { need: need.total().0, free: free.0, device: device.to_owned(), fix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::synth::{Scheme, Shape, SynthOptions, to_bytes};

    fn shape(tied_head: bool) -> Shape {
        Shape {
            name: "tiny".into(),
            architecture: "llama".into(),
            hidden: 64,
            inter: 96,
            layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            vocab: 288,
            tied_head,
            qkv_bias: false,
            eps: 1e-5,
            rope_base: 1e4,
            context: 4096,
            pre_tokenizer: "smollm".into(),
            rope_llama3: None,
            rope_linear: None,
        }
    }

    fn gguf(tied_head: bool) -> Gguf {
        let options = SynthOptions { scheme: Scheme::Q8_0, layers: None, seed: 1 };
        Gguf::from_bytes(to_bytes(&shape(tied_head), &options).unwrap()).unwrap()
    }

    fn need(gguf: &Gguf, context: usize, kv: KvType) -> VramNeed {
        VramNeed::of(&Config::from_gguf(gguf).unwrap(), gguf.tensors(), context, kv)
    }

    #[test]
    fn every_part_is_what_the_shapes_say() {
        let need = need(&gguf(false), 1024, KvType::F16);
        // Q8_0 has 34 bytes for 32 weights, and its planes as many.
        let matrix = |n: usize, k: usize| aligned(n * k / 32 * 34);
        let block = matrix(64, 64) * 2 + matrix(32, 64) * 2 + matrix(96, 64) * 2 + matrix(64, 96) + 2 * aligned(4 * 64);
        assert_eq!(need.weights.0, 2 * block + aligned(4 * 64) + matrix(288, 64));
        assert_eq!(need.embedding.0, matrix(288, 64));
        assert_eq!(need.kv.0, 1024 * 2 * 2 * 2 * 16 * 2);
        assert_eq!(need.rope.0, 1024 * 16 / 2 * 8);
        assert_eq!(need.prefill.0, 2 * 192 * 64);
        // Floats of a batch: twice 64 of the residual stream, 128 of Q, K and V, twice 64 beside attention, 288 of the block
        // behind it; then logits and the scratch memory of the choice and of attention.
        let floats = 512 * (2 * 64 + 128 + 2 * 64 + 288) + 288;
        let scratch = need.decode.0 - 4 * floats;
        assert!((1 << 16..1 << 20).contains(&scratch), "{scratch}");
    }

    #[test]
    fn a_tied_head_is_there_twice_and_a_context_costs_in_proportion() {
        let (tied, untied) = (need(&gguf(true), 1024, KvType::F16), need(&gguf(false), 1024, KvType::F16));
        assert_eq!((tied.weights, tied.embedding), (untied.weights, untied.embedding));
        let twice = need(&gguf(true), 2048, KvType::F16);
        assert_eq!((twice.kv.0, twice.rope.0), (2 * tied.kv.0, 2 * tied.rope.0));
        // Of every position one token more is kept for the choice; the buffers of a batch are there for any context.
        assert_eq!((twice.prefill, twice.decode.0 - tied.decode.0), (tied.prefill, 4 * 1024));
    }

    #[test]
    fn keys_and_values_in_eight_bits_take_a_byte_each_and_a_scale_a_head() {
        let (half, int8) = (need(&gguf(true), 1024, KvType::F16), need(&gguf(true), 1024, KvType::Int8));
        assert_eq!(int8.kv.0, half.kv.0 * (16 + 4) / 32);
        assert_eq!((int8.weights, int8.prefill), (half.weights, half.prefill));
    }

    #[test]
    fn too_little_memory_is_said_with_both_numbers_and_what_fits() {
        let gguf = gguf(true);
        let config = Config::from_gguf(&gguf).unwrap();
        let total = |context, kv| need(&gguf, context, kv).total();
        let try_with = |kv, free| {
            check(&config, || gguf.tensors(), 4096, kv, NonZeroUsize::MIN, free, "A GPU").map_err(|e| e.to_string())
        };
        assert!(try_with(KvType::F16, total(4096, KvType::F16)).is_ok());
        let said = try_with(KvType::F16, total(4096, KvType::Int8)).unwrap_err();
        assert!(said.contains("A GPU") && said.contains("--kv int8 fits"), "{said}");
        let said = try_with(KvType::Int8, total(1024, KvType::Int8)).unwrap_err();
        let mib = total(4096, KvType::Int8).0.div_ceil(1 << 20);
        assert!(said.contains(&format!("{mib} MiB")) && said.contains("--ctx 1024 fits"), "{said}");
        let said = try_with(KvType::F16, Bytes(1 << 20)).unwrap_err();
        assert!(said.contains("1 MiB are free") && said.contains("smaller model"), "{said}");
    }

    #[test]
    fn every_slot_has_keys_values_and_a_choice_of_its_own_and_fewer_are_named_where_so_many_do_not_fit() {
        let gguf = gguf(true);
        let config = Config::from_gguf(&gguf).unwrap();
        let of =
            |slots| VramNeed::of_slots(&config, gguf.tensors(), 4096, KvType::F16, NonZeroUsize::new(slots).unwrap());
        let [one, two, three] = [1, 2, 3].map(of);
        assert_eq!(one, need(&gguf, 4096, KvType::F16));
        assert_eq!((two.kv.0, three.kv.0), (2 * one.kv.0, 3 * one.kv.0));
        let choice = two.decode.0 - one.decode.0;
        assert_eq!((choice, three.decode.0 - two.decode.0), (sampled::bytes(config.vocab, 4096) + ALIGN, choice));
        assert_eq!((two.weights, two.rope, two.prefill), (one.weights, one.rope, one.prefill));
        assert_eq!((one.reserve.0, three.reserve.0), (RESERVE, RESERVE + 2 * SLOT_RESERVE));
        let five = NonZeroUsize::new(5).unwrap();
        let said = check(&config, || gguf.tensors(), 4096, KvType::F16, five, three.total(), "A GPU").unwrap_err();
        assert!(said.to_string().contains("--parallel 3 fits"), "{said}");
        let most = NonZeroUsize::MAX;
        let said = check(&config, || gguf.tensors(), 4096, KvType::F16, most, three.total(), "A GPU").unwrap_err();
        let said = said.to_string();
        assert!(said.contains("needs more than 17592186044415 MiB") && said.contains("--parallel 3 fits"), "{said}");
    }

    #[test]
    fn where_no_number_of_slots_fits_as_asked_a_shorter_context_of_as_many_or_of_one_is_named() {
        let gguf = gguf(true);
        let config = Config::from_gguf(&gguf).unwrap();
        let many = NonZeroUsize::new(200).unwrap();
        let total = |context, kv, slots| VramNeed::of_slots(&config, gguf.tensors(), context, kv, slots).total().0;
        let said = |kv, free| {
            let refused = check(&config, || gguf.tensors(), 4096, kv, many, Bytes(free), "A GPU");
            refused.unwrap_err().to_string()
        };
        let one = NonZeroUsize::MIN;
        let short = total(1024, KvType::Int8, one);
        assert!(short < total(256, KvType::Int8, many), "else as many fit with a short context");
        let said_of_short = said(KvType::Int8, short);
        assert!(said_of_short.contains("--parallel 1 with --ctx 1024 fits"), "{said_of_short}");
        let int8 = said(KvType::F16, total(4096, KvType::Int8, one));
        assert!(int8.contains("--parallel 1 with --kv int8 fits"), "{int8}");
        let none = said(KvType::Int8, 1 << 20);
        assert!(none.contains("no --ctx and no --kv makes it fit"), "{none}");
    }
}
