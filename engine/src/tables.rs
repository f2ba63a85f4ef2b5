//! Which table the kernels are taken from: that of this device, one that was asked for, or none.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use kernels::cpu::{device_key, last_level_cache};
use variants::{Isa, Limits, Table, TableFile};

use crate::generate::TableChoice;
use crate::model::LoadError;

/// The folders of this user's tables, the first of them before the next and all before the built-in ones.
pub fn folders() -> Vec<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "edgellm");
    dirs.map(|dirs| dirs.data_dir().join("tables")).into_iter().collect()
}

/// The table of a choice for so many threads of a level, and what there is to say of it. A table that is absent, damaged
/// or of another device means the defaults, which are right everywhere, only slower.
///
/// # Errors
/// [`LoadError::Table`] where a file that was asked for by its path cannot be used.
pub(crate) fn choose(choice: TableChoice, isa: Isa, threads: usize) -> Result<(Table, Option<String>), LoadError> {
    let device = device_key(isa, threads);
    let limits = Limits::cpu(isa, last_level_cache());
    match choice {
        TableChoice::Default => Ok((Table::default_for(isa), None)),
        TableChoice::Baseline => Ok((Table::baseline(), None)),
        TableChoice::Device => {
            let (table, loaded) = Table::for_device(&device, limits, &folders());
            let note = loaded.is_default().then(|| loaded.to_string());
            Ok((table, note))
        }
        TableChoice::File(path) => {
            let file = TableFile::load(path).map_err(LoadError::Table)?;
            let foreign = file.device != device;
            let note = foreign.then(|| {
                let (there, here) = (&file.device.name, &device.name);
                format!(
                    "the table {} was measured on {there} under other conditions than {here} has now",
                    path.display()
                )
            });
            Ok((Table::of_file(file, limits), note))
        }
    }
}

/// Logs a note the first time that this process hears it: a server loads models again and again.
pub(crate) fn say_once(note: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(note.to_owned()) {
        tracing::warn!("{note}");
    }
}
