//! Parsing of space files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::{Space, SpaceError, check};

#[derive(Deserialize)]
#[serde(untagged)]
enum Constant {
    Number(i64),
    Text(String),
}

/// Constants are written as numbers or as text.
pub(super) fn defines<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let constants = BTreeMap::<String, Constant>::deserialize(from)?;
    let text = |c| match c {
        Constant::Number(n) => n.to_string(),
        Constant::Text(t) => t,
    };
    Ok(constants.into_iter().map(|(name, c)| (name, text(c))).collect())
}

impl Space {
    /// Reads a space. `file` is the name that errors carry; `folder` is where a user's sources lie, `None` for a built-in
    /// space. `dims` are the dimensions of the op where the space does not list them.
    ///
    /// # Errors
    /// [`SpaceError`] names the file, the kernel and what to change.
    pub fn parse(file: &str, text: &str, folder: Option<&Path>, dims: &[String]) -> Result<Space, SpaceError> {
        let mut space: Space = toml::from_str(text).map_err(|e| SpaceError::Syntax {
            file: file.to_owned(),
            // The parser's text ends in a line break and shows the line that it stumbled over.
            message: e.to_string().trim_end().to_owned(),
        })?;
        if space.dims.is_empty() {
            space.dims = dims.to_vec();
        }
        for kernel in &mut space.kernels {
            kernel.op.clone_from(&space.op);
            kernel.folder = folder.map(Path::to_path_buf);
        }
        check::space(file, &mut space)?;
        Ok(space)
    }
}
