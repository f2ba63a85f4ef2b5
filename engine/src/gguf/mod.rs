//! GGUF files: reading them through a mapping, and writing them.
//!
//! ```text
//!   magic  version  n_tensors  n_kv │ n_kv × (key, type, value) │ n_tensors × (name, dims, type, offset) │ pad │ data
//! ```
//!
//! Nothing in a file is believed: every count and length is compared with the bytes that are left before it is used,
//! every tensor must lie inside the file, aligned and apart from the others. Strings and arrays stay in the mapping.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

mod cursor;
mod error;
mod mapping;
mod meta;
mod value;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness_spec::DType;

use cursor::Cursor;
pub use error::{GgufError, MetaError};
pub use mapping::Mapping;
pub use value::{Array, Kind, Value};
pub use writer::{GgufWriter, MetaValue, WriteError};

/// The alignment of tensor data where a file names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// More dimensions than any tensor of the format has.
const MAX_DIMS: usize = 4;

/// An open file: header read and checked, tensor data mapped.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    mapping: Arc<Mapping>,
    version: u32,
    alignment: u64,
    // Trees rather than hash tables: they grow by small nodes, so no count in a header makes a large allocation.
    meta: BTreeMap<Box<str>, Value>,
    tensors: BTreeMap<Box<str>, TensorInfo>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its weights.
    pub dtype: DType,
    /// Its dimensions as the file stores them: the row length K first, then the number of rows.
    dims: [usize; MAX_DIMS],
    n_dims: usize,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

impl TensorInfo {
    /// The dimensions as the file stores them: the row length K first, then the number of rows.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.n_dims]
    }

    /// Length of a row.
    pub fn k(&self) -> usize {
        self.dims[0]
    }

    /// Number of rows; 1 for a vector.
    pub fn n(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.k() * self.n()
    }

    /// Never: a tensor without weights is refused when the file is opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// [`GgufError`] says what is wrong with the file and what to do about it.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let mapping = Mapping::open(path).map_err(|source| GgufError::Open { path: path.to_owned(), source })?;
        Gguf::parse(path.to_owned(), mapping)
    }

    /// Reads a file that lies in memory.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        Gguf::parse(PathBuf::new(), Mapping::from_vec(bytes))
    }

    /// The path that was opened; empty for one in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of tensor data.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The whole file, shared with the matrices that read their weights from it.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The tensors by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (&**name, info))
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.mapping.bytes()[tensor.span.clone()]
    }

    fn parse(path: PathBuf, mapping: Mapping) -> Result<Gguf, GgufError> {
        let bytes = mapping.bytes();
        let (version, mut cursor) = check_start(bytes)?;
        let n_tensors = cursor.u64("the number of tensors")?;
        let n_kv = cursor.u64("the number of metadata entries")?;

        // A key, its type and one byte of value take at least 13 bytes.
        let n_kv = cursor.expect(n_kv, 13, "the metadata")?;
        let mut meta = BTreeMap::new();
        for _ in 0..n_kv {
            let key = cursor.text("a metadata key")?;
            let value = cursor.value(key)?;
            if meta.insert(key.into(), value).is_some() {
                return Err(GgufError::DuplicateKey { key: key.to_owned() });
            }
        }
        let alignment = match meta.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(&Value::Uint(a)) if a.is_power_of_two() && a <= 65536 => a,
            Some(&Value::Uint(found)) => return Err(GgufError::Alignment { found }),
            Some(_) => return Err(GgufError::Alignment { found: 0 }),
        };

        // A name, one dimension, the type and the offset take at least 32 bytes.
        let n_tensors = cursor.expect(n_tensors, 32, "the tensor table")?;
        let mut tensors: BTreeMap<Box<str>, TensorInfo> = BTreeMap::new();
        for _ in 0..n_tensors {
            let name = cursor.text("a tensor name")?;
            let info = read_tensor(&mut cursor, name, alignment)?;
            if tensors.insert(name.into(), info).is_some() {
                return Err(GgufError::DuplicateTensor { tensor: name.to_owned() });
            }
        }
        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        place(&mut tensors, data_start, bytes.len())?;
        Ok(Gguf { path, mapping: Arc::new(mapping), version, alignment, meta, tensors })
    }
}

/// Checks magic and version, and returns a cursor behind them.
fn check_start(bytes: &[u8]) -> Result<(u32, Cursor<'_>), GgufError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(GgufError::TooShort { bytes: bytes.len() });
    };
    if magic != b"GGUF" {
        return Err(GgufError::Magic { found: format!("`{}`", magic.escape_ascii()) });
    }
    if rest.len() < 20 {
        return Err(GgufError::TooShort { bytes: bytes.len() });
    }
    let mut cursor = Cursor::new(bytes, 4);
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok((version, cursor)),
        1 => Err(GgufError::Version1),
        // No version has come near 2^16, so a number whose low half is empty has its bytes the other way round.
        v if v & 0xffff == 0 && v != 0 => Err(GgufError::BigEndian { version: v.swap_bytes() }),
        version => Err(GgufError::Version { version }),
    }
}

/// Reads one entry of the tensor table. The span is relative to the data section until [`place`] moves it.
fn read_tensor(cursor: &mut Cursor<'_>, name: &str, alignment: u64) -> Result<TensorInfo, GgufError> {
    let n_dims = cursor.u32("the number of dimensions")? as usize;
    let mut shape = [1u64; MAX_DIMS];
    let wrong = |shape: &[u64], why: &str| {
        Err(GgufError::Shape { tensor: name.to_owned(), shape: shape.to_vec(), why: why.to_owned() })
    };
    if n_dims == 0 || n_dims > MAX_DIMS {
        return wrong(&[], &format!("it has {n_dims} dimensions, and 1 to {MAX_DIMS} are allowed"));
    }
    for dim in &mut shape[..n_dims] {
        *dim = cursor.u64("a dimension")?;
    }
    let id = cursor.u32("a tensor type")?;
    let offset = cursor.u64("a tensor offset")?;
    let shape_read = &shape[..n_dims];
    let Some(dtype) = DType::from_gguf_id(id) else {
        return Err(GgufError::TensorType { tensor: name.to_owned(), name: error::ggml_type_name(id) });
    };
    if shape_read.contains(&0) {
        return wrong(shape_read, "a dimension is zero");
    }
    let mut dims = [1usize; MAX_DIMS];
    for (to, &from) in dims.iter_mut().zip(&shape) {
        match usize::try_from(from) {
            Ok(dim) => *to = dim,
            Err(_) => return wrong(shape_read, "a dimension does not fit this machine's addresses"),
        }
    }
    if !dims[0].is_multiple_of(dtype.block_len()) {
        return wrong(shape_read, &format!("rows of type {dtype} must be a multiple of {}", dtype.block_len()));
    }
    let rows = dims[1..].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let bytes = rows.and_then(|n| dtype.row_bytes(dims[0])?.checked_mul(n));
    let end = bytes.and_then(|b| usize::try_from(offset).ok()?.checked_add(b));
    let Some(end) = end else {
        return wrong(shape_read, "its size overflows");
    };
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { tensor: name.to_owned(), offset, alignment });
    }
    Ok(TensorInfo { dtype, dims, n_dims, span: offset as usize..end })
}

/// Moves the spans to file positions, and checks that they lie in the file and apart.
fn place(tensors: &mut BTreeMap<Box<str>, TensorInfo>, data_start: u64, file_bytes: usize) -> Result<(), GgufError> {
    let mut by_start: Vec<(&Box<str>, &mut TensorInfo)> = tensors.iter_mut().collect();
    by_start.sort_unstable_by_key(|(_, info)| (info.span.start, info.span.end));
    let end = |info: &TensorInfo| data_start.saturating_add(info.span.end as u64);
    if let Some((name, _)) = by_start.iter().find(|(_, info)| end(info) > file_bytes as u64) {
        let expected = by_start.iter().map(|(_, info)| end(info)).max().unwrap_or(0);
        return Err(GgufError::Truncated { tensor: name.to_string(), expected, actual: file_bytes as u64 });
    }
    if let Some(pair) = by_start.windows(2).find(|pair| pair[0].1.span.end > pair[1].1.span.start) {
        return Err(GgufError::Overlap { first: pair[0].0.to_string(), second: pair[1].0.to_string() });
    }
    for (_, info) in by_start {
        // Both ends are at most the file's size, which is a usize.
        let start = data_start as usize;
        info.span = start + info.span.start..start + info.span.end;
    }
    Ok(())
}
