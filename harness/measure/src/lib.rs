//! The `measure` crate.
