//! What each verb does, a file each.

pub mod eval;
pub mod info;
pub mod models;
pub mod pull;
pub mod run;
pub mod serve;
pub mod synth;

mod answer;
mod chat;

use anyhow::Context;
use engine::Engine;
use engine::generate::LoadOptions;
use engine::models::{
    DEFAULT_MODEL, Entry, PullError, PullSettings, Source, Store, StoreError, TerminalProgress, pull_blocking, resolve,
};

use crate::exit::Failure;

/// The model that a user's word means.
fn find(word: &str) -> Result<Entry, Failure> {
    resolve(&Store::of_this_user()?, word).map_err(failure_of_store)
}

/// The same; the default model is pulled if it is not there.
fn find_or_pull(word: &str) -> Result<Entry, Failure> {
    let store = Store::of_this_user()?;
    match resolve(&store, word) {
        Err(StoreError::Unknown { .. }) if word == DEFAULT_MODEL => {
            eprintln!("{word} is not on this machine yet");
            let source = Source::BuiltIn;
            let name = source.default_name();
            Ok(pull_blocking(&store, &source, &name, &PullSettings::from_env(), &mut TerminalProgress::new())?)
        }
        found => found.map_err(failure_of_store),
    }
}

/// Loads a model; the error names the file, which the engine's own does not always do.
fn load(entry: &Entry, options: &LoadOptions) -> Result<Engine, Failure> {
    Ok(Engine::load(&entry.path, options).with_context(|| cannot_use(entry))?)
}

fn cannot_use(entry: &Entry) -> String {
    format!("cannot use {}", entry.path.display())
}

/// A word that can be no name is wrong usage; all else is something that could not be done.
fn failure_of_store(error: StoreError) -> Failure {
    match error {
        StoreError::Name(_) => Failure::Usage(error.to_string()),
        _ => error.into(),
    }
}

fn failure_of_pull(error: PullError) -> Failure {
    match error {
        PullError::Source { .. } | PullError::Name(_) => Failure::Usage(error.to_string()),
        _ => error.into(),
    }
}

/// Bytes as people read them, in binary units.
fn binary(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << shift)),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::binary;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(binary(98_362_432), "93.8 MiB");
        assert_eq!([binary(1023), binary(1024), binary(5 << 30)], ["1023 B", "1.0 KiB", "5.0 GiB"]);
    }
}
