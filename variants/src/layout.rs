//! The forms in which kernels want their weights and their activations.

use std::fmt;

use serde::{Deserialize, Serialize};

/// In what form a kernel wants its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Activations {
    /// 32-bit floats: nothing is rounded before the product.
    #[serde(rename = "f32")]
    F32,
    /// 16-bit floats.
    #[serde(rename = "f16")]
    F16,
    /// int8 with a float scale and a float sum for every 32 elements.
    #[serde(rename = "a8/32")]
    A8,
    /// int8 with a float scale and a float sum for every 16 elements.
    #[serde(rename = "a8/16")]
    A8Group16,
}

impl Activations {
    /// The form as space files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Activations::F32 => "f32",
            Activations::F16 => "f16",
            Activations::A8 => "a8/32",
            Activations::A8Group16 => "a8/16",
        }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! layouts {
    ($($(#[$doc:meta])* $case:ident = $name:literal,)*) => {
        /// How weights lie in memory for a kernel, or, in pages, keys and values. The `kernels` crate packs each of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Layout {
            $($(#[$doc])* #[serde(rename = $name)] $case,)*
        }

        impl Layout {
            /// Every layout.
            pub const ALL: &[Layout] = &[$(Layout::$case),*];

            /// The layout as space files write it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Layout::$case => $name,)*
                }
            }
        }
    };
}

layouts! {
    /// The file's own blocks, no copy.
    Gguf = "gguf",
    /// Quants of a row contiguous, scales in a plane of their own behind them.
    Planes = "planes",
    /// One warp load of 512 contiguous bytes covers 4 rows by 8 blocks of columns.
    RowInterleaved4 = "row_interleaved_4",
    /// One warp load covers 8 rows by 4 blocks of columns.
    RowInterleaved8 = "row_interleaved_8",
    /// One warp load covers 16 rows by 2 blocks of columns.
    RowInterleaved16 = "row_interleaved_16",
    /// One warp load covers 32 rows, a lane each.
    RowInterleaved32 = "row_interleaved_32",
    /// `row_interleaved_8` in contiguous chunks of 2 KiB of quants, each followed by its scales.
    Staged2k = "staged_2k",
    /// The same in chunks of 4 KiB.
    Staged4k = "staged_4k",
    /// The same in chunks of 8 KiB.
    Staged8k = "staged_8k",
    /// The same in chunks of 16 KiB.
    Staged16k = "staged_16k",
    /// 4 bit, 128 columns a group: low nibble the even column, f16 scales apart. No file type has it.
    G128 = "g128",
    /// int8 with one f16 scale a row. No file type has it.
    I8Row = "i8row",
    /// Fragments of a 16-bit matrix instruction.
    Mma16x16 = "mma_16x16",
    /// Fragments of an 8-bit matrix instruction.
    Mma16x32 = "mma_16x32",
    /// 4-bit codes in the order of two 8-bit fragments.
    Mma16x64 = "mma_16x64",
    /// Tiles of 4 rows, 4 columns of each row in every 16-byte vector.
    Rows4Cols4 = "rows4_cols4",
    /// Tiles of 8 rows, 4 columns of each row in every 32-byte vector.
    Rows8Cols4 = "rows8_cols4",
    /// Tiles of 16 rows, 4 columns of each row in every 64-byte vector.
    Rows16Cols4 = "rows16_cols4",
    /// Tiles of 16 rows, pairs of neighbouring columns as indices into a table.
    Rows16Pairs = "rows16_pairs",
    /// Keys and values in pages of 16 positions that a block table finds.
    Paged16 = "paged_16",
    /// The same in pages of 32 positions.
    Paged32 = "paged_32",
    /// The same in pages of 64 positions.
    Paged64 = "paged_64",
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Both {
        layout: Layout,
        activations: Activations,
    }

    #[test]
    fn every_name_is_read_back_as_what_it_names() {
        let forms = [Activations::F32, Activations::F16, Activations::A8, Activations::A8Group16];
        for &layout in Layout::ALL {
            for activations in forms {
                let text = toml::to_string(&Both { layout, activations }).unwrap();
                assert!(
                    text.contains(&format!("\"{layout}\"")) && text.contains(&format!("\"{activations}\"")),
                    "{text}"
                );
                let back: Both = toml::from_str(&text).unwrap();
                assert_eq!((back.layout, back.activations), (layout, activations));
            }
        }
    }
}
