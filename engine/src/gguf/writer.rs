//! Writes GGUF version 3, streaming tensor data so that no model needs to fit in memory.

use std::io::{self, Write};

use harness_spec::DType;

use super::{DEFAULT_ALIGNMENT, Kind};

/// A metadata value to be written.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Each case is the format's type of that name.
pub enum MetaValue {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

impl From<&str> for MetaValue {
    fn from(text: &str) -> MetaValue {
        MetaValue::String(text.to_owned())
    }
}

impl From<String> for MetaValue {
    fn from(text: String) -> MetaValue {
        MetaValue::String(text)
    }
}

impl From<u32> for MetaValue {
    fn from(v: u32) -> MetaValue {
        MetaValue::U32(v)
    }
}

impl From<f32> for MetaValue {
    fn from(v: f32) -> MetaValue {
        MetaValue::F32(v)
    }
}

impl From<bool> for MetaValue {
    fn from(v: bool) -> MetaValue {
        MetaValue::Bool(v)
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refused.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    /// A row length that the type cannot hold.
    #[error("tensor `{tensor}` of type {dtype} has rows of {k}, which is no multiple of {}", dtype.block_len())]
    Row {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its row length.
        k: usize,
    },
    /// The source of a tensor's data gave another number of bytes than its shape needs.
    #[error("tensor `{tensor}` needs {want} bytes and got {got}")]
    Length {
        /// The tensor.
        tensor: String,
        /// Bytes its shape needs.
        want: u64,
        /// Bytes given.
        got: u64,
    },
}

struct Entry {
    name: String,
    dtype: DType,
    dims: Vec<usize>,
    bytes: u64,
}

/// Collects metadata and a tensor table, and then streams the file.
pub struct GgufWriter {
    alignment: u64,
    meta: Vec<(String, MetaValue)>,
    tensors: Vec<Entry>,
}

impl Default for GgufWriter {
    fn default() -> GgufWriter {
        GgufWriter::new()
    }
}

impl GgufWriter {
    /// An empty file with the usual alignment.
    pub fn new() -> GgufWriter {
        GgufWriter { alignment: DEFAULT_ALIGNMENT, meta: Vec::new(), tensors: Vec::new() }
    }

    /// Sets another alignment, a power of two, and writes it to the metadata.
    pub fn alignment(&mut self, alignment: u32) {
        assert!(alignment.is_power_of_two(), "the format allows powers of two only");
        self.alignment = alignment.into();
        self.meta("general.alignment", alignment);
    }

    /// Adds a metadata entry, or replaces the one under the same key.
    pub fn meta(&mut self, key: &str, value: impl Into<MetaValue>) {
        let value = value.into();
        match self.meta.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = value,
            None => self.meta.push((key.to_owned(), value)),
        }
    }

    /// Removes a metadata entry.
    pub fn remove_meta(&mut self, key: &str) {
        self.meta.retain(|(k, _)| k != key);
    }

    /// Adds a tensor. `dims` as the file stores them: the row length first.
    ///
    /// # Errors
    /// [`WriteError::Row`] where the row length does not fit the type.
    pub fn tensor(&mut self, name: &str, dtype: DType, dims: &[usize]) -> Result<(), WriteError> {
        let k = dims[0];
        let row = dtype.row_bytes(k).ok_or_else(|| WriteError::Row { tensor: name.to_owned(), dtype, k })?;
        let bytes = row as u64 * dims[1..].iter().map(|&d| d as u64).product::<u64>();
        self.tensors.push(Entry { name: name.to_owned(), dtype, dims: dims.to_vec(), bytes });
        Ok(())
    }

    /// Size of the file that [`GgufWriter::write`] makes.
    pub fn file_bytes(&self) -> u64 {
        let (header, offsets) = self.header();
        match (self.tensors.last(), offsets.last()) {
            (Some(last), Some(offset)) => header.len() as u64 + offset + last.bytes,
            _ => header.len() as u64,
        }
    }

    /// Writes the file. `data` is called for each tensor, in the order they were added, and writes its bytes.
    ///
    /// # Errors
    /// [`WriteError`] where the system refuses or `data` writes a wrong number of bytes.
    pub fn write<W: Write>(
        &self,
        out: W,
        mut data: impl FnMut(&str, DType, &[usize], &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let mut out = Counted { out, written: 0 };
        let (header, offsets) = self.header();
        out.write_all(&header)?;
        for (entry, offset) in self.tensors.iter().zip(offsets) {
            let start = header.len() as u64 + offset;
            while out.written < start {
                out.write_all(&[0u8; 64][..64.min((start - out.written) as usize)])?;
            }
            data(&entry.name, entry.dtype, &entry.dims, &mut out)?;
            let got = out.written - start;
            if got != entry.bytes {
                return Err(WriteError::Length { tensor: entry.name.clone(), want: entry.bytes, got });
            }
        }
        out.flush()?;
        Ok(())
    }

    /// Everything before the data, padded to the alignment, and each tensor's offset in the data.
    fn header(&self) -> (Vec<u8>, Vec<u64>) {
        let mut h = Vec::new();
        h.extend(b"GGUF");
        h.extend(3u32.to_le_bytes());
        h.extend((self.tensors.len() as u64).to_le_bytes());
        h.extend((self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            put_str(&mut h, key);
            put_value(&mut h, value);
        }
        let mut offsets = Vec::with_capacity(self.tensors.len());
        let mut offset = 0u64;
        for entry in &self.tensors {
            put_str(&mut h, &entry.name);
            h.extend((entry.dims.len() as u32).to_le_bytes());
            for &dim in &entry.dims {
                h.extend((dim as u64).to_le_bytes());
            }
            h.extend(entry.dtype.gguf_id().to_le_bytes());
            h.extend(offset.to_le_bytes());
            offsets.push(offset);
            offset = (offset + entry.bytes).next_multiple_of(self.alignment);
        }
        h.resize(h.len().next_multiple_of(self.alignment as usize), 0);
        (h, offsets)
    }
}

fn put_str(h: &mut Vec<u8>, text: &str) {
    h.extend((text.len() as u64).to_le_bytes());
    h.extend(text.as_bytes());
}

fn put_kind(h: &mut Vec<u8>, kind: Kind) {
    h.extend(kind.id().to_le_bytes());
}

fn put_array(h: &mut Vec<u8>, kind: Kind, len: usize) {
    put_kind(h, Kind::Array);
    put_kind(h, kind);
    h.extend((len as u64).to_le_bytes());
}

fn put_value(h: &mut Vec<u8>, value: &MetaValue) {
    match value {
        MetaValue::U32(v) => {
            put_kind(h, Kind::U32);
            h.extend(v.to_le_bytes());
        }
        MetaValue::I32(v) => {
            put_kind(h, Kind::I32);
            h.extend(v.to_le_bytes());
        }
        MetaValue::U64(v) => {
            put_kind(h, Kind::U64);
            h.extend(v.to_le_bytes());
        }
        MetaValue::F32(v) => {
            put_kind(h, Kind::F32);
            h.extend(v.to_le_bytes());
        }
        MetaValue::Bool(v) => {
            put_kind(h, Kind::Bool);
            h.push((*v).into());
        }
        MetaValue::String(text) => {
            put_kind(h, Kind::String);
            put_str(h, text);
        }
        MetaValue::Strings(items) => {
            put_array(h, Kind::String, items.len());
            for text in items {
                put_str(h, text);
            }
        }
        MetaValue::I32s(items) => {
            put_array(h, Kind::I32, items.len());
            for v in items {
                h.extend(v.to_le_bytes());
            }
        }
        MetaValue::F32s(items) => {
            put_array(h, Kind::F32, items.len());
            for v in items {
                h.extend(v.to_le_bytes());
            }
        }
    }
}

struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
