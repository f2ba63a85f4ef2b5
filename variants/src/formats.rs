//! One space file for an op of several weight types: its text is expanded for each.
//!
//! The file lists the types in a line of its own, `formats = ["q4_0", "q4_k"]`, and names them by placeholders:
//!
//! | placeholder | is | `q4_0` | `q4_k` |
//! |---|---|---|---|
//! | `{t}` | the type in names of ops | `q4_0` | `q4_k` |
//! | `{T}` | the type as spaces and sources write it | `Q4_0` | `Q4_K` |
//! | `{BLOCK}` | weights of a block, which a row is a multiple of | 32 | 256 |
//! | `{WORDS}` | registers that a thread of a product takes for two pieces of 16 weights | 8 | 8 |
//! | `{UNIT}` | weights that lie in 16 bytes of codes | 32 | 32 |
//! | `{LAYOUT}` | the layout that kernels of decoded tokens read: `planes`, or `gguf` for 16-bit floats | `planes` | `planes` |
//! | `{A}` | the form of their activations: `a8/32`, or `f32` for 16-bit floats | `a8/32` | `a8/32` |
//! | `{SLAB}` | bytes of K activations in that form | `K + K / 4` | `K + K / 4` |
//! | `{INSTRUCTION}` | what multiplies them | `idp` | `idp` |

use serde::Deserialize;

#[derive(Deserialize)]
struct Listed {
    formats: Vec<String>,
}

/// Weights of a block and of 16 bytes of codes.
fn sizes(format: &str) -> (u32, u32) {
    match format {
        "q8_0" => (32, 16),
        "q4_k" | "q5_k" | "q6_k" => (256, 32),
        "tq2_0" => (256, 64),
        // Rows of floats are read with their activations in groups of 32.
        "f16" | "bf16" => (32, 8),
        "f32" => (32, 4),
        _ => (32, 32),
    }
}

/// The name of each type of a space file and the text for it.
///
/// # Panics
/// Where the file does not list its types: the files are part of the program.
pub(crate) fn expanded(text: &str) -> Vec<(String, String)> {
    let listed: Listed = toml::from_str(text).unwrap_or_else(|e| panic!("a space of several types lists them: {e}"));
    // The line is left empty, so that errors name the right lines.
    let lines = text.lines().map(|line| if line.starts_with("formats = ") { "" } else { line });
    let space: String = lines.flat_map(|line| [line, "\n"]).collect();
    let expand = |format: String| {
        let (block, unit) = sizes(&format);
        let [layout, activations, slab, instruction] = match format.as_str() {
            "f16" | "bf16" | "f32" => ["gguf", "f32", "K * 4", "fma"],
            _ => ["planes", "a8/32", "K + K / 4", "idp"],
        };
        let words = if unit == 8 { 16 } else { 8 };
        let text = space
            .replace("{t}", &format)
            .replace("{T}", &format.to_uppercase())
            .replace("{BLOCK}", &block.to_string())
            .replace("{UNIT}", &unit.to_string())
            .replace("{WORDS}", &words.to_string())
            .replace("{LAYOUT}", layout)
            .replace("{A}", activations)
            .replace("{SLAB}", slab)
            .replace("{INSTRUCTION}", instruction);
        (format, text)
    };
    listed.formats.into_iter().map(expand).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_expanded_for_each_type_with_its_own_sizes() {
        let text = "op = \"x_{t}\"\nformats = [\"q8_0\", \"q4_k\"]\ndoc = \"{T} {BLOCK} {UNIT}\"";
        let want = ["op = \"x_q8_0\"\n\ndoc = \"Q8_0 32 16\"\n", "op = \"x_q4_k\"\n\ndoc = \"Q4_K 256 32\"\n"];
        let got = expanded(text);
        assert_eq!(got.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["q8_0", "q4_k"]);
        assert_eq!(got.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), want);
    }
}
