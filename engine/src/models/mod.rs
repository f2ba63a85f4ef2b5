//! Models by name: the store on this machine, and the places models are pulled from.
//!
//! A model is one GGUF file. The store gives files names such as `smollm2:135m` and remembers where each came
//! from and what its SHA-256 is; the file itself stays an ordinary GGUF that any other tool reads.

mod digest;
mod name;
mod progress;
pub mod pull;
mod store;

pub use digest::{NotADigest, Sha256Hex, sha256_file};
pub use name::{ModelName, NameError};
pub use progress::{Progress, Silent, TerminalProgress};
pub use pull::{PullError, PullSettings, Source, pull as pull_model, pull_blocking};
pub use store::{Entry, Store, StoreError, resolve};

/// The model that is used when none is named. It is small enough for every machine and has a permissive licence.
pub const DEFAULT_MODEL: &str = "smollm2:135m";
