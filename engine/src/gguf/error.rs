//! What can be wrong with a GGUF file.

use std::path::PathBuf;

/// A file that cannot be read as GGUF.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is too short to hold even a header.
    #[error(
        "the file has {bytes} bytes, too few for a GGUF header\nhint: the download may have broken off; pull the model again"
    )]
    TooShort {
        /// Its size.
        bytes: usize,
    },
    /// The file is something else.
    #[error("not a GGUF file: it begins with {found}, not `GGUF`\nhint: give the path of a .gguf file{}", hint(found))]
    Magic {
        /// The first four bytes, printable ones as text.
        found: String,
    },
    /// The first version of the format.
    #[error(
        "GGUF version 1 is not supported\nhint: convert the file again with a current llama.cpp; versions 2 and 3 are read"
    )]
    Version1,
    /// Big-endian files.
    #[error(
        "the file is a big-endian GGUF (version {version}), which is not supported\nhint: convert it with llama.cpp's gguf_convert_endian.py"
    )]
    BigEndian {
        /// The version, with its bytes in order.
        version: u32,
    },
    /// A version that did not exist when this was written.
    #[error("GGUF version {version} is not supported\nhint: versions 2 and 3 are read")]
    Version {
        /// The version.
        version: u32,
    },
    /// The header is cut off.
    #[error(
        "the file is truncated: {what} at byte {at} needs {need} bytes and {have} are left\nhint: the download may have broken off, or the header is damaged; pull the model again"
    )]
    Header {
        /// What was being read.
        what: String,
        /// Where.
        at: usize,
        /// Bytes it needs.
        need: u64,
        /// Bytes left in the file.
        have: usize,
    },
    /// Tensor data is cut off.
    #[error(
        "the file is truncated: its tensors need {expected} bytes and it has {actual} (tensor `{tensor}` does not fit)\nhint: the download broke off; pull the model again"
    )]
    Truncated {
        /// The first tensor, by offset, that does not fit.
        tensor: String,
        /// The size that the tensor table asks for.
        expected: u64,
        /// The size of the file.
        actual: u64,
    },
    /// A string that must be text is not.
    #[error("{what} at byte {at} is not valid UTF-8\nhint: the file is damaged; pull the model again")]
    Utf8 {
        /// What was being read.
        what: String,
        /// Where.
        at: usize,
    },
    /// A value type that the format does not have.
    #[error("metadata `{key}` has the unknown value type {id}\nhint: the file is damaged, or newer than this engine")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        id: u32,
    },
    /// A bool that is neither 0 nor 1.
    #[error("metadata `{key}` is a bool with the value {found}\nhint: the file is damaged; pull the model again")]
    Bool {
        /// The key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// Arrays inside arrays inside arrays.
    #[error("metadata `{key}` nests arrays deeper than {most}")]
    Nesting {
        /// The key.
        key: String,
        /// The depth that is read.
        most: usize,
    },
    /// One key twice.
    #[error("metadata `{key}` occurs twice\nhint: the file is damaged; convert it again")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// One tensor name twice.
    #[error("tensor `{tensor}` occurs twice\nhint: the file is damaged; convert it again")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// An alignment that is no power of two.
    #[error("`general.alignment` is {found}, and must be a power of two up to 65536")]
    Alignment {
        /// What the file says.
        found: u64,
    },
    /// A shape that no tensor can have.
    #[error("tensor `{tensor}` has the shape {shape:?}: {why}")]
    Shape {
        /// The name.
        tensor: String,
        /// Its dimensions as the file stores them, the row length first.
        shape: Vec<u64>,
        /// What is wrong.
        why: String,
    },
    /// A tensor type that the engine does not read.
    #[error(
        "tensor `{tensor}` has type {name}, which is not supported\nhint: this engine reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K, TQ1_0 and TQ2_0"
    )]
    TensorType {
        /// The name.
        tensor: String,
        /// The type's name, or its number where it has none.
        name: String,
    },
    /// Data that does not start where the format says.
    #[error(
        "tensor `{tensor}` starts at offset {offset}, which is no multiple of the alignment {alignment}\nhint: the file is damaged; convert it again"
    )]
    Misaligned {
        /// The name.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap in the file\nhint: the file is damaged; convert it again")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
    },
}

fn hint(found: &str) -> &'static str {
    match found {
        "`PK`" | "`PK\\x03\\x04`" => "; this looks like a zip archive, such as a PyTorch checkpoint or a wheel",
        "`<!DO`" | "`<htm`" | "`<HTM`" => "; this looks like a web page, so the download went to the wrong address",
        "`vers`" => "; this looks like a Git LFS pointer, so fetch the file itself",
        _ => "",
    }
}

/// Metadata that is not there, or not of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The key is missing.
    #[error(
        "the file has no metadata `{key}`\nhint: it may not be a language model, or was converted by an old tool; convert it again"
    )]
    Missing {
        /// The key.
        key: String,
    },
    /// The key has another type.
    #[error("metadata `{key}` is {found}, and must be {want}")]
    Type {
        /// The key.
        key: String,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        want: &'static str,
    },
    /// A string that is not text.
    #[error("metadata `{key}` is not valid UTF-8")]
    Utf8 {
        /// The key.
        key: String,
    },
}

/// Names of the tensor types of ggml that the engine does not read, so that a message can say which it met.
pub(super) fn ggml_type_name(id: u32) -> String {
    let name = match id {
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        39 => "MXFP4",
        _ => return format!("number {id}"),
    };
    name.to_owned()
}
