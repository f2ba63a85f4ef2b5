//! Shapes of models: those of `suites/models`, built in, and those of files.

use std::path::Path;

use serde::Deserialize;

use super::{SynthError, vocab};
use crate::model::Architecture;

/// The shape of a model: one file of `suites/models`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The name by which it is asked for.
    pub name: String,
    /// `llama`, `qwen2` or `qwen3`.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub inter: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocab: usize,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// The ε of every RMSNorm.
    pub eps: f32,
    /// θ of the rotation.
    pub rope_base: f32,
    /// Positions the model was trained for.
    pub context: usize,
    /// The rule that cuts text into words, as `tokenizer.ggml.pre` names it.
    pub pre_tokenizer: String,
    /// Frequency scaling of Llama 3, written as a factor tensor.
    pub rope_llama3: Option<RopeLlama3>,
    /// Linear scaling of positions.
    pub rope_linear: Option<f32>,
}

/// Parameters of Llama 3's frequency scaling.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeLlama3 {
    /// What low frequencies are divided by.
    pub factor: f32,
    /// Wavelengths above `original_context / low_freq_factor` are scaled in full.
    pub low_freq_factor: f32,
    /// Wavelengths below `original_context / high_freq_factor` are not scaled.
    pub high_freq_factor: f32,
    /// The context before scaling.
    pub original_context: f32,
}

impl RopeLlama3 {
    /// What each frequency is divided by, `[dims / 2]`: the content of `rope_freqs.weight`.
    /// Source: `rope_scaling` of type `llama3` in the transformers library, as llama.cpp's converter stores it.
    pub fn factors(&self, base: f32, dims: usize) -> Vec<f32> {
        let (low, high) = (self.original_context / self.low_freq_factor, self.original_context / self.high_freq_factor);
        let factor_of = |i: usize| {
            let frequency = 1.0 / base.powf(2.0 * i as f32 / dims as f32);
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength < high {
                return 1.0;
            }
            if wavelength > low {
                return self.factor;
            }
            let smooth = (self.original_context / wavelength - self.low_freq_factor)
                / (self.high_freq_factor - self.low_freq_factor);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        };
        (0..dims / 2).map(factor_of).collect()
    }
}

const BUILT_IN: [&str; 10] = [
    include_str!("../../../suites/models/smollm-135m.toml"),
    include_str!("../../../suites/models/smollm2-135m.toml"),
    include_str!("../../../suites/models/qwen2.5-0.5b.toml"),
    include_str!("../../../suites/models/qwen2.5-1.5b.toml"),
    include_str!("../../../suites/models/qwen2.5-3b.toml"),
    include_str!("../../../suites/models/qwen2.5-7b.toml"),
    include_str!("../../../suites/models/qwen3-0.6b.toml"),
    include_str!("../../../suites/models/llama-3.2-1b.toml"),
    include_str!("../../../suites/models/llama-3.2-3b.toml"),
    include_str!("../../../suites/models/llama-3.1-8b.toml"),
];

pub(super) fn names() -> String {
    shapes().iter().map(|shape| shape.name.clone()).collect::<Vec<_>>().join(", ")
}

/// The built-in shapes, smallest family first.
pub fn shapes() -> Vec<Shape> {
    BUILT_IN.iter().map(|text| toml::from_str(text).expect("a test parses every built-in shape")).collect()
}

impl Shape {
    /// The built-in shape of this name, or the shape in the TOML file of this path.
    ///
    /// # Errors
    /// [`SynthError`] where there is neither, or the file is no shape.
    pub fn find(name: &str) -> Result<Shape, SynthError> {
        if let Some(shape) = shapes().into_iter().find(|shape| shape.name.eq_ignore_ascii_case(name)) {
            return Ok(shape);
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|e| e != "toml") {
            return Err(SynthError::UnknownShape { name: name.to_owned() });
        }
        let text =
            std::fs::read_to_string(path).map_err(|source| SynthError::Read { path: path.to_owned(), source })?;
        let shape: Shape = toml::from_str(&text)
            .map_err(|error| SynthError::Toml { name: name.to_owned(), why: error.message().to_owned() })?;
        shape.check()?;
        Ok(shape)
    }

    pub(super) fn architecture(&self) -> Result<Architecture, SynthError> {
        let known = Architecture::ALL.into_iter().find(|a| a.name() == self.architecture);
        known.ok_or_else(|| self.impossible(format!("the engine knows no architecture `{}`", self.architecture)))
    }

    pub(super) fn impossible(&self, why: String) -> SynthError {
        SynthError::Shape { name: self.name.clone(), why }
    }

    pub(super) fn check(&self) -> Result<(), SynthError> {
        self.architecture()?;
        let sizes = [self.hidden, self.inter, self.layers, self.n_heads, self.n_kv_heads, self.head_dim, self.context];
        if sizes.contains(&0) {
            return Err(self.impossible("a size is zero".into()));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let why = format!("{} query heads cannot share {} key heads evenly", self.n_heads, self.n_kv_heads);
            return Err(self.impossible(why));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(self.impossible(format!("a head of {} elements has no pairs to rotate", self.head_dim)));
        }
        let least = vocab::least_tokens(&self.pre_tokenizer);
        if self.vocab < least {
            return Err(self.impossible(format!("the byte-level tokenizer needs at least {least} tokens")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_shape_parses_and_is_possible() {
        let shapes = shapes();
        assert_eq!(shapes.len(), BUILT_IN.len());
        for shape in shapes {
            shape.check().unwrap();
            assert_eq!(Shape::find(&shape.name).unwrap(), shape);
        }
    }

    #[test]
    fn an_unknown_shape_is_named_with_the_known_ones() {
        let message = Shape::find("gpt-5").unwrap_err().to_string();
        assert!(message.contains("`gpt-5`") && message.contains("qwen2.5-1.5b"), "{message}");
    }

    #[test]
    fn llama_3_factors_leave_short_waves_alone_and_divide_long_ones_by_the_factor() {
        let scaling =
            RopeLlama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
        let factors = scaling.factors(5e5, 64);
        assert_eq!(factors.len(), 32);
        assert_eq!(factors[0], 1.0);
        assert_eq!(factors[31], 32.0);
        assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(factors.iter().any(|&f| f > 1.0 && f < 32.0), "there is a smooth part");
    }
}
