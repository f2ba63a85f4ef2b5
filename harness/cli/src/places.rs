//! Folders of this user: what is kept in them, and what may be thrown away.

use std::path::PathBuf;

use anyhow::anyhow;

/// The folder of models, tables and the log: `EDGELLM_HOME`, or `edgellm` in the user's data folder.
///
/// # Errors
/// Neither is known.
pub fn data() -> anyhow::Result<PathBuf> {
    from_variable("EDGELLM_HOME")
        .or_else(|| Some(directories::ProjectDirs::from("", "", "edgellm")?.data_dir().to_owned()))
        .ok_or_else(|| anyhow!("no home folder is known\nhint: set EDGELLM_HOME to a folder for models and tables"))
}

/// The folder of tables.
///
/// # Errors
/// As [`data`].
pub fn tables() -> anyhow::Result<PathBuf> {
    Ok(data()?.join("tables"))
}

/// The folder of what can be measured or compiled again: `EDGELLM_CACHE`, or `edgellm` in the user's cache folder.
///
/// # Errors
/// Neither is known.
pub fn cache() -> anyhow::Result<PathBuf> {
    from_variable("EDGELLM_CACHE")
        .or_else(|| Some(directories::BaseDirs::new()?.cache_dir().join("edgellm")))
        .ok_or_else(|| anyhow!("no home folder is known\nhint: set EDGELLM_CACHE to a folder for the cache"))
}

fn from_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}
