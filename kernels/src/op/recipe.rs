//! How the data of a case are made. Each op draws from its own kinds.

use super::sample::SampleParams;

/// The way the data of a case are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recipe {
    /// Weights and activations of a product.
    Product(Weights, Values),
    /// The same, added to a residual.
    ProductAndResidual(Weights, Values),
    /// Rows of activations for ops without weight blocks.
    Rows(Values),
    /// Queries, keys and values.
    Attention(Scores),
    /// Rows of queries, keys and values that are rotated and appended.
    Append(Append),
    /// Logits of which a token is chosen.
    Sample(Sampling),
    /// Plain bytes.
    Stream,
}

/// A choice of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The logits.
    pub logits: SampleLogits,
    /// What is asked for.
    pub params: SampleParams,
    /// The uniform number of the draw; without one, any.
    pub uniform: Option<f64>,
}

/// What the logits of a choice look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleLogits {
    /// Realistic: some tokens far above the others.
    Model,
    /// Uniform between -1 and 1.
    Flat,
    /// All the same.
    Equal,
    /// Nine values, so that most logits tie.
    Levels,
    /// One 1e4 among small ones.
    OneHuge,
    /// Growing with the index.
    Rising,
    /// Minus infinity but for the last third.
    LowInfinities,
    /// Minus infinity alone.
    AllLowest,
    /// Two of plus infinity, one the last.
    HighInfinities,
    /// Every third a NaN.
    Nans,
    /// NaN alone.
    AllNan,
    /// The largest floats of both signs, zeros of both signs, and subnormal ones.
    Extremes,
}

/// How the weights of a product are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights {
    /// Random codes under scales between 1/64 and 1.
    Random,
    /// Normal values with rare large ones, rounded by the encoder of the type.
    Gaussian,
    /// Small integers times powers of two that differ from block to block.
    Integer,
    /// Every code at every column in as many rows as there are codes, in an order that differs from column to column.
    Ramp,
    /// Every code the same, every scale one.
    Code(u8),
    /// Random codes under this f16 scale, given as its bits.
    Scale(u16),
    /// Random codes under scales that change sign from block to block.
    ScaleSigns,
    /// Every byte zero.
    Zero,
    /// Every byte the same but for the scales, which are one.
    Byte(u8),
    /// Super-blocks with all scales and minima 63 where only sub-block 5 has codes, and dmin far above d.
    SubBlockFive,
    /// Super-blocks with 16 signed scales from -128 to 127 and codes at one end of their range.
    SignedScales {
        /// Whether the codes are at the low end.
        low: bool,
    },
    /// Ternary codes 0 and 2 in turn.
    Alternating,
    /// Random, but with a scale of NaN in these rows: 0 the first and 1 every row.
    NanRows {
        /// Whether every row has one.
        all: bool,
    },
    /// Random codes of negative weights alone.
    Negative,
    /// Every weight minus infinity.
    MinusInfinity,
    /// Every row the same, so that all outputs tie.
    SameRows,
    /// Random, with a last row that wins by far.
    LastRowWins,
}

/// How activations are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Uniform between -1 and 1.
    Random,
    /// Normal, one in a hundred thirty times as large.
    Outliers,
    /// Small integers with 127 in every group of 16, which rounding to int8 keeps as they are.
    Integer,
    /// All the same.
    Constant(f32),
    /// The same magnitude with signs in turn.
    Alternate(f32),
    /// 127 at one column, zero elsewhere.
    OneHot(usize),
    /// 127 at column b mod 32 of block b of 32, zero elsewhere.
    Diagonal,
    /// Random, times this.
    Times(f32),
    /// One group of 32 zero, the rest one.
    ZeroGroup,
    /// One 1e4 among 1e-2.
    OneLarge,
    /// Another pattern in every group of four.
    Fours,
    /// Exact halves of an int8 step.
    Halves,
    /// The largest magnitude in the last columns alone, growing to the end.
    LastLargest,
}

/// How rows are made that are appended to a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Append {
    /// The rows before the bias.
    pub values: Values,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the heads of queries and keys are normalised.
    pub norms: bool,
    /// The position of the first row.
    pub place: Place,
}

/// Where rows are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At position 0.
    Start,
    /// At position 1, or 0 where that leaves no room.
    Second,
    /// Anywhere.
    Random,
    /// So that the last row is at the last position (AD-16).
    Last,
}

/// What the scores of attention look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// Normal queries, keys and values.
    Random,
    /// Realistic: a few keys that dominate, values with outliers.
    Peaked,
    /// Every score far below zero.
    Negative,
    /// One score of 1e4.
    OneHuge,
    /// All keys equal.
    Equal,
    /// Keys whose magnitude grows with their position.
    Growing,
    /// Each value is its position and head, so that a wrong stride shows.
    Positions,
}
