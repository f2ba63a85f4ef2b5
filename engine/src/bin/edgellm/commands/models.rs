//! `edgellm models`: list and remove.

use std::io::Write;

use engine::models::{DEFAULT_MODEL, Entry, Store, StoreError};
use serde_json::json;

use super::binary;
use crate::args::{ModelsArgs, ModelsVerb};
use crate::exit::Failure;

pub fn run(args: &ModelsArgs) -> Result<(), Failure> {
    let store = Store::of_this_user()?;
    match &args.verb {
        None => list(&store, args.json),
        Some(ModelsVerb::List { json }) => list(&store, *json || args.json),
        Some(ModelsVerb::Rm { names }) => {
            // All are looked up before the first is removed: a typing error must not leave half of it done.
            for name in names {
                match store.find(name) {
                    Ok(_) | Err(StoreError::Dangling { .. }) => {}
                    Err(StoreError::Unknown { .. }) => {
                        let hint = "hint: edgellm models lists what there is";
                        return Err(Failure::CouldNot(anyhow::anyhow!("there is no model '{name}' to remove\n{hint}")));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            for name in names {
                store.remove(name)?;
                eprintln!("removed {name}");
            }
            Ok(())
        }
    }
}

fn list(store: &Store, as_json: bool) -> Result<(), Failure> {
    let entries = store.list()?;
    let text = if as_json {
        let list: Vec<_> = entries.iter().map(json_of).collect();
        serde_json::to_string_pretty(&list).expect("strings and numbers have a JSON form")
    } else if entries.is_empty() {
        eprintln!("no models in {} yet; try: edgellm pull {DEFAULT_MODEL}", store.dir().display());
        return Ok(());
    } else {
        table(&entries)
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)
}

fn json_of(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name.to_string(),
        "path": entry.path.display().to_string(),
        "bytes": entry.size,
        "sha256": entry.sha256.as_ref().map(|digest| digest.as_str()),
        "source": entry.source,
        "is_reference": entry.is_reference,
    })
}

fn table(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| entry.name.to_string().len()).max().unwrap_or(0).max(4);
    let mut lines = vec![format!("{:width$}  {:>10}  {:12}  SOURCE", "NAME", "SIZE", "SHA-256")];
    for entry in entries {
        let name = entry.name.to_string();
        let digest = entry.sha256.as_ref().map_or("-", |digest| &digest.as_str()[..12]);
        lines.push(format!("{name:width$}  {:>10}  {digest:12}  {}", binary(entry.size), entry.source));
    }
    lines.join("\n")
}
