//! The tables that come with the program. Each was measured on the device that it names.

/// Tables by file name.
const TABLES: &[(&str, &str)] = &[
    ("amd-epyc.toml", include_str!("../../tables/amd-epyc.toml")),
    ("nvidia-h200.toml", include_str!("../../tables/nvidia-h200.toml")),
];

/// The name of each, with its text.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().copied()
}

/// The text of a built-in table.
pub(super) fn text(file_name: &str) -> Option<&'static str> {
    TABLES.iter().find(|(name, _)| *name == file_name).map(|(_, text)| *text)
}
