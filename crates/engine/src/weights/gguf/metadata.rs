//! The typed key-value pairs at the head of a GGUF file.
//!
//! Owns the value types and their conversion; must not know what any key means.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, HEADER_LIMIT};
use crate::weights::error::{Fault, Part, WeightsError};
use crate::weights::map::MappedBytes;

/// Deeper nesting than this is refused; no known key nests at all.
const NESTING_LIMIT: usize = 4;

/// The smallest metadata entry: an empty key, a type and one byte.
pub(super) const SMALLEST_ENTRY: u64 = 8 + 4 + 1;

/// The value types by their codes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const BY_CODE: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let code = cursor.u32()?;
        Self::BY_CODE.get(code as usize).copied().ok_or(Fault::UnknownValueType { code })
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// The size of a value, or the smallest it can have: an empty string, an empty array (its type and count).
    fn smallest(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }

    fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::Bool | Self::String | Self::Array)
    }

    /// A little-endian integer of this type, widened.
    fn integer(self, bytes: &[u8]) -> i128 {
        let signed = matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64);
        let negative = signed && bytes.last().is_some_and(|&top| top & 0x80 != 0);
        let mut wide = if negative { [0xff; 16] } else { [0; 16] };
        wide[..bytes.len()].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    }
}

/// One value, as far as it is decoded when the file is opened.
#[derive(Debug, Clone)]
enum Value {
    Integer(Kind, i128),
    Float(Kind, f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    /// Numbers (or bools) stay in the map until they are asked for.
    Numbers(Kind, MappedBytes),
    /// Checked, but without a reader: no known key has such a value.
    Arrays,
}

impl Value {
    fn kind(&self) -> String {
        match self {
            Self::Integer(kind, _) | Self::Float(kind, _) => kind.name().to_owned(),
            Self::Bool(_) => Kind::Bool.name().to_owned(),
            Self::String(_) => Kind::String.name().to_owned(),
            Self::Strings(_) => "array of string".to_owned(),
            Self::Numbers(kind, _) => format!("array of {}", kind.name()),
            Self::Arrays => "array of array".to_owned(),
        }
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        Ok(match Kind::read(cursor)? {
            Kind::F32 => Self::Float(Kind::F32, f64::from(f32::from_le_bytes(cursor.array()?))),
            Kind::F64 => Self::Float(Kind::F64, f64::from_le_bytes(cursor.array()?)),
            Kind::Bool => match cursor.array()? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [found] => return Err(Fault::InvalidBool { found }),
            },
            Kind::String => Self::String(cursor.string()?),
            Kind::Array => Self::read_array(cursor)?,
            kind => Self::Integer(kind, kind.integer(&cursor.cut(kind.smallest() as u64)?)),
        })
    }

    fn read_array(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let kind = Kind::read(cursor)?;
        let count = cursor.count("array elements", kind.smallest() as u64)?;
        Ok(match kind {
            Kind::String => {
                // Vocabularies of some published files cut a character in two; the tokenizer sees U+FFFD there.
                let text = |_| cursor.text().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                Self::Strings((0..count).map(text).collect::<Result<_, _>>()?)
            }
            Kind::Array => {
                (0..count).try_for_each(|_| skip_array(cursor, 2))?;
                Self::Arrays
            }
            number => Self::Numbers(number, cursor.cut((count * number.smallest()) as u64)?),
        })
    }
}

/// Passes over an array inside an array, `depth` arrays deep.
fn skip_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Fault> {
    if depth > NESTING_LIMIT {
        return Err(Fault::NestedTooDeep { limit: NESTING_LIMIT });
    }
    let kind = Kind::read(cursor)?;
    let count = cursor.count("array elements", kind.smallest() as u64)?;
    match kind {
        Kind::String => (0..count).try_for_each(|_| cursor.text().map(drop)),
        Kind::Array => (0..count).try_for_each(|_| skip_array(cursor, depth + 1)),
        number => cursor.cut((count * number.smallest()) as u64).map(drop),
    }
}

/// The metadata of a GGUF file, by key.
#[derive(Debug, Clone)]
pub struct GgufMetadata {
    file: PathBuf,
    values: BTreeMap<String, Value>,
}

impl GgufMetadata {
    pub(super) fn read(file: &Path, cursor: &mut Cursor<'_>, count: usize) -> Result<Self, WeightsError> {
        let mut values = BTreeMap::new();
        for index in 0..count {
            let key = cursor.string().map_err(|fault| fault.of(file, Part::KeyAt(index)))?;
            let at_key = |fault: Fault| fault.of(file, Part::Key(key.clone()));
            let value = Value::read(cursor).map_err(at_key)?;
            match values.entry(key.clone()) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(_) => return Err(at_key(Fault::Duplicate)),
            };
        }
        Ok(Self { file: file.to_path_buf(), values })
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether the file has this key.
    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// What `read` makes of `key`, or `None` where the file does not have it:
    /// `metadata.optional("llama.rope.freq_base", GgufMetadata::f32)`.
    ///
    /// # Errors
    /// Those of `read`: a key that is there must be of the right type.
    pub fn optional<'data, T>(
        &'data self,
        key: &str,
        read: impl FnOnce(&'data Self, &str) -> Result<T, WeightsError>,
    ) -> Result<Option<T>, WeightsError> {
        if self.contains(key) { read(self, key).map(Some) } else { Ok(None) }
    }

    /// A string.
    ///
    /// # Errors
    /// The key is missing or of another type; so for all readers below.
    pub fn string(&self, key: &str) -> Result<&str, WeightsError> {
        match self.value(key)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong_type(key, "string", other)),
        }
    }

    /// An integer of any type whose value fits u32.
    ///
    /// # Errors
    /// Also when the value does not fit.
    pub fn u32(&self, key: &str) -> Result<u32, WeightsError> {
        match self.value(key)? {
            &Value::Integer(_, found) => self.fit(key, "u32", found),
            other => Err(self.wrong_type(key, "u32", other)),
        }
    }

    /// An f32, or an f64 rounded to one.
    pub fn f32(&self, key: &str) -> Result<f32, WeightsError> {
        match self.value(key)? {
            &Value::Float(_, found) => Ok(found as f32),
            other => Err(self.wrong_type(key, "f32", other)),
        }
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<bool, WeightsError> {
        match self.value(key)? {
            &Value::Bool(found) => Ok(found),
            other => Err(self.wrong_type(key, "bool", other)),
        }
    }

    /// A list of strings. Bytes that are not UTF-8 have become U+FFFD.
    pub fn strings(&self, key: &str) -> Result<&[String], WeightsError> {
        match self.value(key)? {
            Value::Strings(texts) => Ok(texts),
            other => Err(self.wrong_type(key, "array of string", other)),
        }
    }

    /// A list of integers of any type whose values fit i32.
    ///
    /// # Errors
    /// Also when a value does not fit.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, WeightsError> {
        match self.value(key)? {
            Value::Numbers(kind, bytes) if kind.is_integer() => {
                let numbers = bytes.chunks_exact(kind.smallest()).map(|number| kind.integer(number));
                numbers.map(|found| self.fit(key, "i32", found)).collect()
            }
            other => Err(self.wrong_type(key, "array of i32", other)),
        }
    }

    /// A list of f32.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, WeightsError> {
        match self.value(key)? {
            Value::Numbers(Kind::F32, bytes) => {
                Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
            }
            other => Err(self.wrong_type(key, "array of f32", other)),
        }
    }

    fn value(&self, key: &str) -> Result<&Value, WeightsError> {
        self.values.get(key).ok_or_else(|| self.fault(key, Fault::Missing))
    }

    fn fit<T: TryFrom<i128>>(&self, key: &str, expected: &'static str, found: i128) -> Result<T, WeightsError> {
        T::try_from(found).map_err(|_| self.fault(key, Fault::ValueOutOfRange { expected, found }))
    }

    fn wrong_type(&self, key: &str, expected: &'static str, found: &Value) -> WeightsError {
        self.fault(key, Fault::WrongValueType { expected, found: found.kind() })
    }

    pub(super) fn fault(&self, key: &str, fault: Fault) -> WeightsError {
        fault.of(&self.file, Part::Key(key.to_owned()))
    }
}

// `count * smallest` above cannot overflow: `Cursor::count` bounds it.
const _: () = assert!(HEADER_LIMIT < u32::MAX as u64);
