//! How the data of a case are made.

/// The way the data of a case are made; each op takes its own kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// Plain bytes for `stream_read`.
    Stream,
}
