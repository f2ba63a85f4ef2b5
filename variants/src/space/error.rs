//! What can be wrong with a space file. Every case names the file and, where there is one, the kernel, and says what to
//! change: these are the words that somebody reads who has just written their first kernel.

use crate::expr::ExprError;

/// Why a space cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Fields are the file, the kernel and what the message shows of them.
pub enum SpaceError {
    /// A file or folder that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// A folder without space files.
    #[error("{folder} has no space file: put a .toml beside each .cu")]
    Empty { folder: String },
    /// It is not TOML, a field is missing or of the wrong type, or a key is not known.
    #[error("{file}: {message}")]
    Syntax { file: String, message: String },
    /// A user's file for an op that does not exist.
    #[error("{file}: unknown op {op:?}: use one of {known}")]
    UnknownOp { file: String, op: String, known: String },
    /// The op lists other dimensions than the built-in op of that name.
    #[error("{file}: op {op} has the dimensions {want}: remove `dims`, the op has them already")]
    OtherDims { file: String, op: String, want: String },
    /// A name that cannot be part of an id.
    #[error(
        "{file}: {kernel:?} is no name for a kernel: use lower case letters, digits and _, and @isa at the end if need be"
    )]
    BadName { file: String, kernel: String },
    /// Two kernels of one op have one id.
    #[error("{file}: there is another kernel {kernel}: give one of them a different name")]
    Duplicate { file: String, kernel: String },
    /// Two plain kernels of one op, backend and weight type.
    #[error("{file}: kernel {kernel}: {other} is the baseline already: remove `baseline = true` from one of them")]
    SecondBaseline { file: String, kernel: String, other: String },
    /// A tunable without values, or with a value twice.
    #[error("{file}: kernel {kernel}: tunable {tunable} needs a list of different values, such as [1, 2, 4]")]
    BadValues { file: String, kernel: String, tunable: String },
    /// A tunable or constant whose name is no macro, or means something else already.
    #[error("{file}: kernel {kernel}: {name} cannot be the name of a tunable or constant: {reason}")]
    BadMacro { file: String, kernel: String, name: String, reason: &'static str },
    /// A constant with the name of a tunable.
    #[error("{file}: kernel {kernel}: {name} is a tunable and a constant: remove it from one of the two tables")]
    DefineIsTunable { file: String, kernel: String, name: String },
    /// A tunable without a default.
    #[error("{file}: kernel {kernel}: tunable {tunable} has no default: add it to [kernels.default]")]
    NoDefault { file: String, kernel: String, tunable: String },
    /// A default for something that is no tunable.
    #[error(
        "{file}: kernel {kernel}: the default sets {name}, which is no tunable: add it to [kernels.tunables] or remove it"
    )]
    DefaultOfNothing { file: String, kernel: String, name: String },
    /// A default that is not one of the values.
    #[error("{file}: kernel {kernel}: the default of {tunable} is {value}, which is not one of its values {values:?}")]
    DefaultNotAValue { file: String, kernel: String, tunable: String, value: i64, values: Vec<i64> },
    /// More configurations than anybody can measure.
    #[error("{file}: kernel {kernel}: its tunables make {count} configurations, more than {most}: take values away")]
    TooMany { file: String, kernel: String, count: u128, most: u128 },
    /// A key that the backend needs.
    #[error("{file}: kernel {kernel}: a {backend} kernel needs `{key}`")]
    MissingKey { file: String, kernel: String, backend: &'static str, key: &'static str },
    /// A key that means nothing on the backend.
    #[error("{file}: kernel {kernel}: `{key}` means nothing to a {backend} kernel: remove it")]
    UselessKey { file: String, kernel: String, backend: &'static str, key: &'static str },
    /// A grid or block of no or more than three dimensions.
    #[error("{file}: kernel {kernel}: {what} needs one to three expressions")]
    BadDims { file: String, kernel: String, what: &'static str },
    /// A bad expression.
    #[error("{file}: kernel {kernel}: {what} `{expression}` {source}")]
    Expression { file: String, kernel: String, what: &'static str, expression: String, source: Box<ExprError> },
    /// A user's kernel for a processor: such code is built in.
    #[error("{file}: kernel {kernel}: kernels of a user's folder are CUDA sources: set backend = \"cuda\"")]
    NotCuda { file: String, kernel: String },
    /// A source that is not there.
    #[error(
        "{file}: kernel {kernel}: there is no source {path}: check `source`, which counts from the folder of the .toml"
    )]
    NoSource { file: String, kernel: String, path: String },
    /// A source outside of the folder.
    #[error("{file}: kernel {kernel}: source {path:?} leaves the folder of the .toml: put the .cu beside it")]
    SourceOutside { file: String, kernel: String, path: String },
    /// A source that does not define what the space says.
    #[error("{file}: kernel {kernel}: {path} does not mention {name}: check `entry`")]
    NoEntry { file: String, kernel: String, path: String, name: String },
    /// A tunable that the source never uses: it would be measured under names that mean the same code.
    #[error(
        "{file}: kernel {kernel}: {path} never uses {name}: remove it from the space, or guard it with #if !defined({name})"
    )]
    Unused { file: String, kernel: String, path: String, name: String },
}
