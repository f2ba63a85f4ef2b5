//! Access to metadata by key and type.

use super::cursor::elements;
use super::value::{Kind, Value};
use super::{Gguf, GgufWriter, MetaError, MetaValue};

impl Gguf {
    /// The keys and values, by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.meta.iter().map(|(key, value)| (&**key, value))
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// [`MetaError`] where the key is missing or has another type.
    pub fn str(&self, key: &str) -> Result<&str, MetaError> {
        self.opt_str(key)?.ok_or_else(|| missing(key))
    }

    /// A string that may be absent.
    ///
    /// # Errors
    /// [`MetaError`] where the key has another type.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, MetaError> {
        match self.meta.get(key) {
            None => Ok(None),
            Some(Value::String(span)) => match std::str::from_utf8(&self.mapping.bytes()[span.clone()]) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(MetaError::Utf8 { key: key.to_owned() }),
            },
            Some(other) => Err(wrong_type(key, other, "a string")),
        }
    }

    /// An integer that is not negative and must be there. Any integer type will do.
    ///
    /// # Errors
    /// [`MetaError`] where the key is missing or has another type.
    pub fn uint(&self, key: &str) -> Result<u64, MetaError> {
        self.opt_uint(key)?.ok_or_else(|| missing(key))
    }

    /// An integer that is not negative and may be absent. Some files give one value for each layer: where all are
    /// equal, that is the value.
    ///
    /// # Errors
    /// [`MetaError`] where the key has another type.
    pub fn opt_uint(&self, key: &str) -> Result<Option<u64>, MetaError> {
        let want = "an integer of 0 or more";
        let scalar = |value: &Value| match *value {
            Value::Uint(v) => Some(v),
            Value::Int(v) => u64::try_from(v).ok(),
            _ => None,
        };
        match self.meta.get(key) {
            None => Ok(None),
            Some(value @ Value::Array(array)) => {
                let mut items = elements(self.mapping.bytes(), array).map(|v| scalar(&v));
                match items.next() {
                    Some(Some(first)) if items.all(|v| v == Some(first)) => Ok(Some(first)),
                    _ => Err(wrong_type(key, value, "one integer, or the same for every layer")),
                }
            }
            Some(value) => scalar(value).map(Some).ok_or_else(|| wrong_type(key, value, want)),
        }
    }

    /// A floating-point number that must be there.
    ///
    /// # Errors
    /// [`MetaError`] where the key is missing or has another type.
    pub fn float(&self, key: &str) -> Result<f32, MetaError> {
        self.opt_float(key)?.ok_or_else(|| missing(key))
    }

    /// A floating-point number that may be absent.
    ///
    /// # Errors
    /// [`MetaError`] where the key has another type.
    pub fn opt_float(&self, key: &str) -> Result<Option<f32>, MetaError> {
        match self.meta.get(key) {
            None => Ok(None),
            Some(&Value::Float(v)) => Ok(Some(v as f32)),
            Some(other) => Err(wrong_type(key, other, "a floating-point number")),
        }
    }

    /// A bool that may be absent.
    ///
    /// # Errors
    /// [`MetaError`] where the key has another type.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, MetaError> {
        match self.meta.get(key) {
            None => Ok(None),
            Some(&Value::Bool(v)) => Ok(Some(v)),
            Some(other) => Err(wrong_type(key, other, "a bool")),
        }
    }

    /// The length of an array; `None` where the key is absent or no array.
    pub fn array_len(&self, key: &str) -> Option<usize> {
        match self.meta.get(key) {
            Some(Value::Array(array)) => Some(array.len),
            _ => None,
        }
    }

    /// The strings of an array that must be there, read as they are asked for.
    ///
    /// # Errors
    /// [`MetaError`] where the key is missing, has another type, or a string of it is not text.
    pub fn strings(&self, key: &str) -> Result<impl Iterator<Item = Result<&str, MetaError>>, MetaError> {
        let want = "an array of strings";
        let array = match self.meta.get(key) {
            None => return Err(missing(key)),
            Some(Value::Array(array)) if array.kind == Kind::String => array,
            Some(other) => return Err(wrong_type(key, other, want)),
        };
        let owned = key.to_owned();
        let bytes = self.mapping.bytes();
        Ok(elements(bytes, array).map(move |value| match value {
            Value::String(span) => {
                std::str::from_utf8(&bytes[span]).map_err(|_| MetaError::Utf8 { key: owned.clone() })
            }
            other => Err(wrong_type(&owned, &other, want)),
        }))
    }

    /// The integers of an array that may be absent.
    ///
    /// # Errors
    /// [`MetaError`] where the key has another type.
    pub fn opt_ints(&self, key: &str) -> Result<Option<Vec<i64>>, MetaError> {
        let want = "an array of integers";
        let (value, array) = match self.meta.get(key) {
            None => return Ok(None),
            Some(value @ Value::Array(array)) => (value, array),
            Some(other) => return Err(wrong_type(key, other, want)),
        };
        let ints = elements(self.mapping.bytes(), array).map(|item| match item {
            Value::Uint(v) => i64::try_from(v).map_err(|_| wrong_type(key, value, want)),
            Value::Int(v) => Ok(v),
            _ => Err(wrong_type(key, value, want)),
        });
        ints.collect::<Result<Vec<i64>, MetaError>>().map(Some)
    }

    /// All metadata as JSON. Arrays longer than `longest` become null, as the Ollama API has it for token lists.
    pub fn metadata_json(&self, longest: usize) -> serde_json::Map<String, serde_json::Value> {
        self.meta.iter().map(|(key, value)| (key.to_string(), self.json(value, longest))).collect()
    }

    /// Gives every entry to a writer. Numbers keep their value and not always their width, which no reader may depend on.
    ///
    /// # Errors
    /// [`MetaError`] where an entry is of a kind that the writer does not have: arrays of arrays, of bools, of large numbers.
    pub fn copy_metadata(&self, writer: &mut GgufWriter) -> Result<(), MetaError> {
        self.meta.iter().try_for_each(|(key, value)| {
            writer.meta(key, self.written(key, value)?);
            Ok(())
        })
    }

    fn written(&self, key: &str, value: &Value) -> Result<MetaValue, MetaError> {
        let want = "a number, a bool, a string, or an array of strings or 32-bit numbers";
        let refused = || wrong_type(key, value, want);
        Ok(match value {
            &Value::Uint(v) => u32::try_from(v).map_or(MetaValue::U64(v), MetaValue::U32),
            &Value::Int(v) => MetaValue::I32(i32::try_from(v).map_err(|_| refused())?),
            &Value::Float(v) => MetaValue::F32(v as f32),
            &Value::Bool(v) => MetaValue::Bool(v),
            Value::String(_) => self.str(key)?.into(),
            Value::Array(array) if array.kind == Kind::String => {
                let strings = self.strings(key)?.map(|text| text.map(str::to_owned));
                MetaValue::Strings(strings.collect::<Result<_, _>>()?)
            }
            Value::Array(array) if matches!(array.kind, Kind::F32 | Kind::F64) => {
                let float = |item| if let Value::Float(v) = item { Ok(v as f32) } else { Err(refused()) };
                MetaValue::F32s(elements(self.mapping.bytes(), array).map(float).collect::<Result<_, _>>()?)
            }
            Value::Array(_) => {
                let ints = self.opt_ints(key)?.unwrap_or_default().into_iter();
                MetaValue::I32s(ints.map(|v| i32::try_from(v).map_err(|_| refused())).collect::<Result<_, _>>()?)
            }
        })
    }

    fn json(&self, value: &Value, longest: usize) -> serde_json::Value {
        match value {
            Value::Uint(v) => (*v).into(),
            Value::Int(v) => (*v).into(),
            Value::Float(v) => shortest(*v).into(),
            Value::Bool(v) => (*v).into(),
            Value::String(span) => String::from_utf8_lossy(&self.mapping.bytes()[span.clone()]).into(),
            Value::Array(array) if array.len > longest => serde_json::Value::Null,
            Value::Array(array) => {
                elements(self.mapping.bytes(), array).map(|item| self.json(&item, longest)).collect()
            }
        }
    }
}

fn missing(key: &str) -> MetaError {
    MetaError::Missing { key: key.to_owned() }
}

fn wrong_type(key: &str, found: &Value, want: &'static str) -> MetaError {
    MetaError::Type { key: key.to_owned(), found: found.kind_name(), want }
}

/// The shortest decimal of a 32-bit float, so that 1e-5 does not read 9.999999747378752e-6.
fn shortest(v: f64) -> f64 {
    let narrow = v as f32;
    let exact = f64::from(narrow) == v;
    if exact { narrow.to_string().parse().unwrap_or(v) } else { v }
}
