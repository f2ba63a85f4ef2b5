//! The text of a table: `<device>.toml`, versioned, written the same byte for byte from the same rows.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use harness_spec::{DeviceKey, Policy, Shape, VariantId, Workload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bucket::{Bucket, MOST_REGRET};
use crate::Layout;

/// Version of the format. A file of another version is not used.
pub const TABLE_SCHEMA: u32 = 1;

/// The winner of an op at a shape, or one of those behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The op.
    pub op: String,
    /// Its dimensions, as `K=896 N=4864`.
    #[serde(with = "shape_text")]
    pub shape: Shape,
    /// The layout that the variant reads; absent for an op without weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The variant.
    pub variant: VariantId,
    /// Median time of one launch, ns; of a row that was chosen in the engine, that of a whole token with it.
    pub median_ns: f64,
    /// 95 % interval of the median, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_ns: Option<[f64; 2]>,
    /// The next best variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<VariantId>,
    /// Median of the next best ÷ median of this one − 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_to_runner_up: Option<f64>,
    /// Why this one won, in a sentence.
    pub reason: String,
    /// Hash of everything that could change the answer.
    pub key: String,
    /// Id of the run that measured the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The policy under which the row was measured, where it is not the table's: rows of fused ops come from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub policy: Option<Policy>,
    /// Why the variant must not run any more; absent while it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
}

impl Row {
    /// The workload of the row.
    pub fn workload(&self) -> Workload {
        Workload { op: self.op.clone(), shape: self.shape.clone() }
    }
}

/// A table as it lies on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    /// [`TABLE_SCHEMA`].
    pub schema: u32,
    /// The policy under which every row was measured that does not name another.
    #[serde(with = "text")]
    pub policy: Policy,
    /// When it was made, RFC 3339 UTC.
    pub date: String,
    /// Version and commit of the program that made it.
    pub tool: String,
    /// Id of the record that the rows come from.
    pub record: String,
    /// Why the search did not reach its end; absent where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// The device. The table is that of no other.
    pub device: DeviceKey,
    /// The rows, by op and shape; of several for one shape the winner is first and the others are what runs if it fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// What runs at shapes without a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Bucket>,
}

/// Why a file is not used as a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Fields are the file and what the message shows of it.
pub enum TableError {
    /// It cannot be read.
    #[error("cannot read the table {path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// It is not TOML, or lacks a field, or has one too many.
    #[error("the table {path} is damaged: {message}; remove it or run `bench tune` again")]
    Damaged { path: String, message: String },
    /// It is of another version.
    #[error("the table {path} is of schema {found}, this program reads {TABLE_SCHEMA}: run `bench tune` again")]
    Schema { path: String, found: i64 },
    /// A row that cannot be right.
    #[error("the table {path} is damaged: the row of {workload} {reason}; remove it or run `bench tune` again")]
    Row { path: String, workload: String, reason: String },
    /// A bucket whose regret is not known to be small.
    #[error(
        "the table {path} has a bucket of {op} with a regret of {regret}: at most {MOST_REGRET} may decide shapes unseen"
    )]
    Bucket { path: String, op: String, regret: String },
    /// It cannot be written.
    #[error("cannot write the table {path}: {reason}")]
    Unwritable { path: String, reason: String },
}

impl TableFile {
    /// Reads the text of a table; `path` is the name that errors carry.
    ///
    /// # Errors
    /// [`TableError`] where it is damaged or of another version.
    pub fn parse(path: &str, text: &str) -> Result<TableFile, TableError> {
        let damaged = |message: String| TableError::Damaged { path: path.to_owned(), message };
        let file: TableFile = toml::from_str(text).map_err(|e| match schema(text) {
            // Another version may have other fields, which only read as damage.
            Some(found) if found != i64::from(TABLE_SCHEMA) => TableError::Schema { path: path.to_owned(), found },
            _ => damaged(e.to_string().trim_end().to_owned()),
        })?;
        if file.schema != TABLE_SCHEMA {
            return Err(TableError::Schema { path: path.to_owned(), found: file.schema.into() });
        }
        file.check(path)?;
        Ok(file)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`TableError`] where it cannot be read, is damaged or of another version.
    pub fn load(path: &Path) -> Result<TableFile, TableError> {
        let name = path.display().to_string();
        let unreadable = |reason: String| TableError::Unreadable { path: name.clone(), reason };
        // A device such as /dev/zero would be read without an end.
        match std::fs::metadata(path) {
            Ok(m) if !m.is_file() => return Err(unreadable("it is no file".to_owned())),
            _ => {}
        }
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        TableFile::parse(&name, &text)
    }

    fn check(&self, path: &str) -> Result<(), TableError> {
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            let bad = |reason: &str| TableError::Row {
                path: path.to_owned(),
                workload: row.workload().to_string(),
                reason: reason.to_owned(),
            };
            // Written so that NaN fails.
            let is_time = |t: f64| t > 0.0 && t.is_finite();
            if !is_time(row.median_ns) {
                return Err(bad("has a median that is no time"));
            }
            if row.ci_ns.is_some_and(|[lo, hi]| !(is_time(lo) && is_time(hi) && lo <= hi)) {
                return Err(bad("has an interval that is none"));
            }
            if row.variant.op != row.op {
                return Err(bad(&format!("names {}, which is of another op", row.variant)));
            }
            if !seen.insert((&row.shape, &row.variant)) {
                return Err(bad(&format!("names {} twice", row.variant)));
            }
        }
        for bucket in &self.buckets {
            if !(0.0..=MOST_REGRET).contains(&bucket.regret_p95) || bucket.variant.op != bucket.op {
                let (op, regret) = (bucket.op.clone(), bucket.regret_p95.to_string());
                return Err(TableError::Bucket { path: path.to_owned(), op, regret });
            }
        }
        Ok(())
    }

    /// The text: rows and buckets in order, so that the same content gives the same bytes.
    pub fn to_text(&self) -> String {
        let mut sorted = self.clone();
        // Stable: several rows of one shape keep their order, which is their rank.
        sorted.rows.sort_by(|a, b| (&a.op, &a.shape).cmp(&(&b.op, &b.shape)));
        sorted.buckets.sort_by(|a, b| (&a.op, &a.dims, a.size).cmp(&(&b.op, &b.dims, b.size)));
        let mut out = String::new();
        let device = &self.device;
        writeln!(out, "# Kernels chosen for {} ({}), by `bench tune`. See ARCHITECTURE.md.", device.name, device.arch)
            .expect("a string takes all");
        out + &toml::to_string(&sorted).expect("a table has no map with keys that are no text, and scalars come first")
    }

    /// The file name of a device's table.
    pub fn file_name(device: &DeviceKey) -> String {
        format!("{}.toml", device.slug())
    }

    /// Writes the table into a folder, under the name of its device, and returns the path. The file is replaced in one
    /// step: a reader sees the old table or the new one.
    ///
    /// # Errors
    /// [`TableError::Unwritable`].
    pub fn save(&self, folder: &Path) -> Result<PathBuf, TableError> {
        let path = folder.join(TableFile::file_name(&self.device));
        self.save_as(&path)?;
        Ok(path)
    }

    /// Writes the table to a path, replaced in one step.
    ///
    /// # Errors
    /// [`TableError::Unwritable`].
    pub fn save_as(&self, path: &Path) -> Result<(), TableError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().prefix(".table").tempfile_in(folder)?;
            file.write_all(self.to_text().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|e: std::io::Error| TableError::Unwritable {
            path: path.display().to_string(),
            reason: e.to_string(),
        })
    }
}

/// The version that a text claims, whatever else is in it.
fn schema(text: &str) -> Option<i64> {
    text.parse::<toml::Table>().ok()?.get("schema")?.as_integer()
}

/// A value as the text that it prints and parses.
mod text {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// As [`text`], where there may be none.
mod optional_text {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

/// A shape as `K=896 N=4864`.
mod shape_text {
    use super::*;

    pub fn serialize<S: Serializer>(shape: &Shape, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(shape)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shape, D::Error> {
        let dims = String::deserialize(from)?;
        // A workload is an op and its shape; only the shape is written here.
        let workload: Result<Workload, _> = format!("op {dims}").parse();
        workload
            .map(|w| w.shape)
            .map_err(|_| serde::de::Error::custom(format!("{dims:?} is no shape, such as \"K=64 N=32\"")))
    }
}
