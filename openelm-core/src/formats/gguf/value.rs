//! A value of a GGUF file's metadata.

use std::fmt;

/// A typed value. Arrays hold values of one type and no arrays.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned, 8 bits.
    Uint8(u8),
    /// Signed, 8 bits.
    Int8(i8),
    /// Unsigned, 16 bits.
    Uint16(u16),
    /// Signed, 16 bits.
    Int16(i16),
    /// Unsigned, 32 bits.
    Uint32(u32),
    /// Signed, 32 bits.
    Int32(i32),
    /// IEEE float, 32 bits.
    Float32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(ValueType, Vec<Self>),
    /// Unsigned, 64 bits.
    Uint64(u64),
    /// Signed, 64 bits.
    Int64(i64),
    /// IEEE float, 64 bits.
    Float64(f64),
}

/// The type of a [`Value`]; its discriminant is the number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// [`Value::Uint8`].
    Uint8 = 0,
    /// [`Value::Int8`].
    Int8 = 1,
    /// [`Value::Uint16`].
    Uint16 = 2,
    /// [`Value::Int16`].
    Int16 = 3,
    /// [`Value::Uint32`].
    Uint32 = 4,
    /// [`Value::Int32`].
    Int32 = 5,
    /// [`Value::Float32`].
    Float32 = 6,
    /// [`Value::Bool`].
    Bool = 7,
    /// [`Value::String`].
    String = 8,
    /// [`Value::Array`].
    Array = 9,
    /// [`Value::Uint64`].
    Uint64 = 10,
    /// [`Value::Int64`].
    Int64 = 11,
    /// [`Value::Float64`].
    Float64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::Uint8,
        Self::Int8,
        Self::Uint16,
        Self::Int16,
        Self::Uint32,
        Self::Int32,
        Self::Float32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::Uint64,
        Self::Int64,
        Self::Float64,
    ];

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Smallest size of a value in the file, in bytes.
    pub(crate) fn least_bytes(self) -> u64 {
        match self {
            Self::Uint8 | Self::Int8 | Self::Bool => 1,
            Self::Uint16 | Self::Int16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 => 4,
            Self::String | Self::Uint64 | Self::Int64 | Self::Float64 => 8,
            Self::Array => 12,
        }
    }
}

impl Value {
    /// The type.
    pub fn kind(&self) -> ValueType {
        match self {
            Self::Uint8(_) => ValueType::Uint8,
            Self::Int8(_) => ValueType::Int8,
            Self::Uint16(_) => ValueType::Uint16,
            Self::Int16(_) => ValueType::Int16,
            Self::Uint32(_) => ValueType::Uint32,
            Self::Int32(_) => ValueType::Int32,
            Self::Float32(_) => ValueType::Float32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(..) => ValueType::Array,
            Self::Uint64(_) => ValueType::Uint64,
            Self::Int64(_) => ValueType::Int64,
            Self::Float64(_) => ValueType::Float64,
        }
    }

    /// An integer of any width that is not negative.
    pub fn as_usize(&self) -> Option<usize> {
        match *self {
            Self::Uint8(value) => Some(value.into()),
            Self::Int8(value) => value.try_into().ok(),
            Self::Uint16(value) => Some(value.into()),
            Self::Int16(value) => value.try_into().ok(),
            Self::Uint32(value) => value.try_into().ok(),
            Self::Int32(value) => value.try_into().ok(),
            Self::Uint64(value) => value.try_into().ok(),
            Self::Int64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A float of either width. A 32-bit float becomes the shortest decimal that represents it:
    /// `1e-6`, not `9.99999997475e-7`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float32(value) => value.to_string().parse().ok(),
            Self::Float64(value) => Some(value),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The values of an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(_, values) => Some(values),
            _ => None,
        }
    }

    /// An array of texts.
    pub fn strings(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let texts = texts.into_iter().map(|text| Self::String(text.into()));
        Self::Array(ValueType::String, texts.collect())
    }

    /// An array of 32-bit floats.
    pub fn floats(values: impl IntoIterator<Item = f32>) -> Self {
        let values = values.into_iter().map(Self::Float32);
        Self::Array(ValueType::Float32, values.collect())
    }

    /// An array of 32-bit integers, signed as in llama.cpp's tools.
    pub fn ints(values: impl IntoIterator<Item = i32>) -> Self {
        let values = values.into_iter().map(Self::Int32);
        Self::Array(ValueType::Int32, values.collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Uint32(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::Float32(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// One line; a long array or text is shown as its length.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uint8(value) => write!(f, "{value}"),
            Self::Int8(value) => write!(f, "{value}"),
            Self::Uint16(value) => write!(f, "{value}"),
            Self::Int16(value) => write!(f, "{value}"),
            Self::Uint32(value) => write!(f, "{value}"),
            Self::Int32(value) => write!(f, "{value}"),
            Self::Float32(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::String(text) if text.len() > 100 => {
                write!(f, "a text of {} bytes", text.len())
            }
            Self::String(text) => write!(f, "{text:?}"),
            Self::Array(kind, values) => write!(f, "{} values of type {kind:?}", values.len()),
            Self::Uint64(value) => write!(f, "{value}"),
            Self::Int64(value) => write!(f, "{value}"),
            Self::Float64(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_integers_of_any_width() {
        assert_eq!(Value::Uint8(200).as_usize(), Some(200));
        assert_eq!(Value::Int64(1 << 40).as_usize(), Some(1 << 40));
        assert_eq!(Value::Int32(-1).as_usize(), None);
        assert_eq!(Value::Float32(3.0).as_usize(), None);
        assert_eq!(Value::Float32(1e-6).as_f64(), Some(1e-6));
        assert_eq!(Value::Float32(10_000.0).as_f64(), Some(10_000.0));
        assert_eq!(
            Value::Float32(f32::NAN).as_f64().map(f64::is_nan),
            Some(true)
        );
        assert_eq!(Value::Float64(0.1).as_f64(), Some(0.1));
        assert_eq!(Value::Bool(true).as_bool(), Some(true));
    }

    #[test]
    fn type_numbers_match_the_format() {
        for (id, kind) in (0..).zip(ValueType::ALL) {
            assert_eq!(kind as u32, id);
            assert_eq!(ValueType::from_id(id), Some(kind));
        }
        assert_eq!(ValueType::from_id(13), None);
    }

    #[test]
    fn long_values_are_shown_by_length() {
        assert_eq!(Value::from("a\nb").to_string(), r#""a\nb""#);
        assert_eq!(
            Value::strings(["a", "b"]).to_string(),
            "2 values of type String"
        );
        let long = Value::String("x".repeat(101));
        assert_eq!(long.to_string(), "a text of 101 bytes");
    }
}
