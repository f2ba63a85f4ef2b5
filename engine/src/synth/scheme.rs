//! Which tensor gets which type, as `llama-quantize` chooses.

use harness_spec::DType;

use super::SynthError;

/// A way of quantising a whole model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of `llama-quantize`.
pub enum Scheme {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    /// Q4_K everywhere but the head.
    Q4K,
    /// Q4_K, with Q6_K for the values and down projections of half the layers: Ollama's usual default.
    Q4KM,
    /// Q5_K everywhere but the head.
    Q5K,
    Q6K,
    TQ1_0,
    TQ2_0,
}

/// What a matrix is for, as far as its type depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The embedding of a model with a head of its own.
    Embed,
    /// The head, or the embedding that is also the head.
    Head,
    /// A value or down projection, which some schemes give more bits in some layers.
    Sensitive { layer: usize },
    /// Any other projection.
    Plain,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Scheme; 13] = [
        Scheme::F32,
        Scheme::F16,
        Scheme::BF16,
        Scheme::Q8_0,
        Scheme::Q4_0,
        Scheme::Q4_1,
        Scheme::Q5_0,
        Scheme::Q4K,
        Scheme::Q4KM,
        Scheme::Q5K,
        Scheme::Q6K,
        Scheme::TQ1_0,
        Scheme::TQ2_0,
    ];

    /// The name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::F32 => "f32",
            Scheme::F16 => "f16",
            Scheme::BF16 => "bf16",
            Scheme::Q8_0 => "q8_0",
            Scheme::Q4_0 => "q4_0",
            Scheme::Q4_1 => "q4_1",
            Scheme::Q5_0 => "q5_0",
            Scheme::Q4K => "q4_k",
            Scheme::Q4KM => "q4_k_m",
            Scheme::Q5K => "q5_k",
            Scheme::Q6K => "q6_k",
            Scheme::TQ1_0 => "tq1_0",
            Scheme::TQ2_0 => "tq2_0",
        }
    }

    /// All names, for messages.
    pub fn names() -> String {
        Scheme::ALL.map(Scheme::name).join(", ")
    }

    /// The scheme of this name, in either case.
    ///
    /// # Errors
    /// [`SynthError::UnknownScheme`] lists the names.
    pub fn find(name: &str) -> Result<Scheme, SynthError> {
        let found = Scheme::ALL.into_iter().find(|scheme| scheme.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| SynthError::UnknownScheme { name: name.to_owned() })
    }

    /// `general.file_type`, by llama.cpp's numbering.
    pub(crate) const fn file_type(self) -> u32 {
        match self {
            Scheme::F32 => 0,
            Scheme::F16 => 1,
            Scheme::Q4_0 => 2,
            Scheme::Q4_1 => 3,
            Scheme::Q8_0 => 7,
            Scheme::Q5_0 => 8,
            Scheme::Q4K => 14,
            Scheme::Q4KM => 15,
            Scheme::Q5K => 16,
            Scheme::Q6K => 18,
            Scheme::BF16 => 32,
            Scheme::TQ1_0 => 36,
            Scheme::TQ2_0 => 37,
        }
    }

    const fn base(self) -> DType {
        match self {
            Scheme::F32 => DType::F32,
            Scheme::F16 => DType::F16,
            Scheme::BF16 => DType::BF16,
            Scheme::Q8_0 => DType::Q8_0,
            Scheme::Q4_0 => DType::Q4_0,
            Scheme::Q4_1 => DType::Q4_1,
            Scheme::Q5_0 => DType::Q5_0,
            Scheme::Q4K | Scheme::Q4KM => DType::Q4K,
            Scheme::Q5K => DType::Q5K,
            Scheme::Q6K => DType::Q6K,
            Scheme::TQ1_0 => DType::TQ1_0,
            Scheme::TQ2_0 => DType::TQ2_0,
        }
    }

    /// The type of a matrix with rows of `k`.
    pub(crate) fn dtype(self, role: Role, k: usize, layers: usize) -> DType {
        let wanted = match (self, role) {
            (Scheme::F32 | Scheme::F16 | Scheme::BF16 | Scheme::Q8_0, _) => self.base(),
            (_, Role::Head) => DType::Q6K,
            // A ternary embedding would leave three values to each input.
            (Scheme::TQ1_0 | Scheme::TQ2_0, Role::Embed) => DType::Q4K,
            (Scheme::Q4KM, Role::Sensitive { layer }) if more_bits(layer, layers) => DType::Q6K,
            _ => self.base(),
        };
        fit(wanted, k)
    }

    /// The type of a matrix with rows of `k` whatever it is for, as `llama-quantize --pure` has it.
    pub(crate) fn pure(self, k: usize) -> DType {
        fit(self.base(), k)
    }
}

/// llama.cpp's `use_more_bits`: the first and last eighth of the layers, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// The type itself where its blocks fill rows of `k`, else the one that `llama-quantize` falls back to. Q5_K falls back
/// to Q8_0 here, as the engine does not read Q5_1.
fn fit(dtype: DType, k: usize) -> DType {
    let fits = |t: DType| k.is_multiple_of(t.block_len());
    let smaller = match dtype {
        _ if fits(dtype) => return dtype,
        DType::TQ1_0 | DType::TQ2_0 => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K | DType::Q6K => DType::Q8_0,
        _ => DType::F16,
    };
    if fits(smaller) { smaller } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_split_a_block_fall_back_as_llama_quantize_does() {
        assert_eq!(Scheme::Q4K.dtype(Role::Plain, 576, 30), DType::Q5_0);
        assert_eq!(Scheme::Q4K.dtype(Role::Plain, 1536, 30), DType::Q4K);
        assert_eq!(Scheme::Q4_0.dtype(Role::Head, 576, 30), DType::Q8_0);
        assert_eq!(Scheme::Q4_0.dtype(Role::Head, 1536, 28), DType::Q6K);
        assert_eq!(Scheme::TQ2_0.dtype(Role::Plain, 576, 30), DType::Q4_0);
        assert_eq!(Scheme::Q4_0.dtype(Role::Plain, 48, 1), DType::F16);
    }

    #[test]
    fn a_medium_k_scheme_gives_half_the_sensitive_tensors_more_bits() {
        let more = (0..28).filter(|&layer| Scheme::Q4KM.dtype(Role::Sensitive { layer }, 1536, 28) == DType::Q6K);
        assert_eq!(more.count(), 14);
        assert_eq!(Scheme::Q4KM.dtype(Role::Plain, 1536, 28), DType::Q4K);
    }

    #[test]
    fn every_scheme_is_found_by_its_name() {
        assert!(Scheme::ALL.into_iter().all(|s| Scheme::find(s.name()).unwrap() == s));
        assert!(Scheme::find("q3_k").unwrap_err().to_string().contains("q4_k_m"));
    }
}
