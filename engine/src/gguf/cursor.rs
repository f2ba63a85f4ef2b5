//! Reads little-endian values off a slice; every length is checked before it is used.

use super::error::GgufError;
use super::value::{Array, Kind, Value};

/// Arrays in arrays are legal and rare; the bound keeps a made-up file from exhausting the stack.
const MAX_NESTING: usize = 4;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Checks that `count` entries of at least `each` bytes can follow, before anything is reserved for them.
    pub fn expect(&self, count: u64, each: usize, what: &str) -> Result<usize, GgufError> {
        let need = count.saturating_mul(each as u64);
        match usize::try_from(count) {
            Ok(count) if need <= self.left() as u64 => Ok(count),
            _ => Err(GgufError::Header { what: what.to_owned(), at: self.at, need, have: self.left() }),
        }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], GgufError> {
        self.expect(n as u64, 1, what)?;
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N, what)?;
        Ok(bytes.try_into().expect("`take` returned N bytes"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<std::ops::Range<usize>, GgufError> {
        let len = self.u64(what)?;
        let len = self.expect(len, 1, what)?;
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let span = self.string(what)?;
        let at = span.start;
        std::str::from_utf8(&self.bytes[span]).map_err(|_| GgufError::Utf8 { what: what.to_owned(), at })
    }

    pub fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let kind = self.kind(key)?;
        self.value_of(kind, key, 0)
    }

    fn kind(&mut self, key: &str) -> Result<Kind, GgufError> {
        let id = self.u32(key)?;
        Kind::from_id(id).ok_or_else(|| GgufError::ValueType { key: key.to_owned(), id })
    }

    fn value_of(&mut self, kind: Kind, key: &str, depth: usize) -> Result<Value, GgufError> {
        Ok(match kind {
            Kind::U8 => Value::Uint(self.array::<1>(key)?[0].into()),
            Kind::I8 => Value::Int(i8::from_le_bytes(self.array(key)?).into()),
            Kind::U16 => Value::Uint(u16::from_le_bytes(self.array(key)?).into()),
            Kind::I16 => Value::Int(i16::from_le_bytes(self.array(key)?).into()),
            Kind::U32 => Value::Uint(u32::from_le_bytes(self.array(key)?).into()),
            Kind::I32 => Value::Int(i32::from_le_bytes(self.array(key)?).into()),
            Kind::U64 => Value::Uint(u64::from_le_bytes(self.array(key)?)),
            Kind::I64 => Value::Int(i64::from_le_bytes(self.array(key)?)),
            Kind::F32 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            Kind::Bool => match self.array::<1>(key)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                found => return Err(GgufError::Bool { key: key.to_owned(), found }),
            },
            Kind::String => Value::String(self.string(key)?),
            Kind::Array => Value::Array(self.skip_array(key, depth + 1)?),
        })
    }

    /// Walks over an array, checking every length in it, and remembers where it lies.
    fn skip_array(&mut self, key: &str, depth: usize) -> Result<Array, GgufError> {
        if depth > MAX_NESTING {
            return Err(GgufError::Nesting { key: key.to_owned(), most: MAX_NESTING });
        }
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        let len = self.expect(count, kind.min_bytes(), key)?;
        let start = self.at;
        match kind {
            Kind::String | Kind::Array | Kind::Bool => {
                for _ in 0..len {
                    self.value_of(kind, key, depth)?;
                }
            }
            fixed => self.at += len * fixed.min_bytes(),
        }
        Ok(Array { kind, len, span: start..self.at })
    }
}

/// Reads the elements of an array that was checked when the file was opened.
pub(super) fn elements<'a>(bytes: &'a [u8], array: &Array) -> impl Iterator<Item = Value> + use<'a> {
    let mut cursor = Cursor::new(bytes, array.span.start);
    let kind = array.kind;
    (0..array.len).map(move |_| cursor.value_of(kind, "", 0).expect("the array was walked when the file was opened"))
}
