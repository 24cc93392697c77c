//! Reader of a GGUF file's header: counts, metadata and the table of tensors.
//!
//! The header is not trusted: a count or a length is compared with the rest of the file before any
//! allocation.

use std::{collections::BTreeMap, io::Read, path::Path};

use super::{
    tensor_info::TensorInfo,
    tensor_type::{MAX_DIMS, TensorType},
    value::{Value, ValueType},
};
use crate::error::{Error, Result};

/// The first four bytes of a file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The alignment of tensors if the file states none.
pub(super) const ALIGNMENT: u64 = 32;
/// Longest name in bytes: ggml keeps names in 64 bytes with a final zero.
pub(super) const MAX_NAME: usize = 63;

/// Largest number of tensors or keys; a model has some hundred tensors and fewer keys.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longest text in bytes; chat templates have some thousand.
const MAX_TEXT: u64 = 1 << 24;
/// Elements of all arrays together; a vocabulary of 256,000 with its merges has 2 million.
const MAX_ELEMENTS: u64 = 1 << 23;
/// Largest alignment in bytes.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The header of a file.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    /// The offset of the tensors' data in the file.
    pub(crate) data: u64,
}

impl Header {
    /// Reads from the start of a file of `length` bytes; errors name `path`.
    pub(crate) fn read(source: impl Read, length: u64, path: &Path) -> Result<Self> {
        let mut cursor = Cursor {
            source,
            path,
            position: 0,
            length,
            elements: 0,
        };
        let version = cursor.version()?;
        let tensors = cursor.count("tensors", 33)?;
        let keys = cursor.count("keys", 13)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = cursor.text("a key", MAX_TEXT)?;
            if key.is_empty() {
                return Err(cursor.malformed("a key is empty"));
            }
            let value = cursor.value(&key)?;
            if metadata.contains_key(&key) {
                return Err(cursor.malformed(format!("the key `{key}` occurs twice")));
            }
            metadata.insert(key, value);
        }
        let alignment = cursor.alignment(metadata.get("general.alignment"))?;

        let mut table = BTreeMap::new();
        for _ in 0..tensors {
            let (name, info) = cursor.tensor(alignment)?;
            if table.contains_key(&name) {
                return Err(cursor.malformed(format!("tensor `{name}` occurs twice")));
            }
            table.insert(name, info);
        }
        // No overflow: the position is within a file.
        let data = cursor.position.next_multiple_of(alignment);
        if table.is_empty() {
            return Err(cursor.malformed("the file holds no tensors"));
        }
        check_places(&table, data, length).map_err(|problem| cursor.malformed(problem))?;
        Ok(Self {
            version,
            metadata,
            tensors: table,
            data,
        })
    }
}

/// Refuses tensors that are not completely inside the file, and tensors that overlap.
fn check_places(
    tensors: &BTreeMap<String, TensorInfo>,
    data: u64,
    length: u64,
) -> Result<(), String> {
    let mut placed: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    placed.sort_by_key(|(_, info)| info.offset);
    let mut last: Option<(&String, u64)> = None;
    for (name, info) in placed {
        let end = info.offset.checked_add(info.bytes);
        if end
            .and_then(|end| end.checked_add(data))
            .is_none_or(|end| end > length)
        {
            return Err(format!(
                "truncated or damaged: tensor `{name}` takes {} bytes at {} of the data, which \
                 has {}",
                info.bytes,
                info.offset,
                length.saturating_sub(data)
            ));
        }
        if let Some((other, _)) = last.filter(|(_, end)| *end > info.offset) {
            return Err(format!("tensors `{other}` and `{name}` overlap"));
        }
        last = end.map(|end| (name, end));
    }
    Ok(())
}

struct Cursor<'a, R> {
    source: R,
    path: &'a Path,
    position: u64,
    length: u64,
    /// Array elements so far.
    elements: u64,
}

impl<R: Read> Cursor<'_, R> {
    fn malformed(&self, problem: impl Into<String>) -> Error {
        Error::checkpoint(self.path, problem)
    }

    fn left(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        if self.left() < N as u64 {
            return Err(self.malformed("truncated: the file ends within its header"));
        }
        let mut bytes = [0; N];
        self.source
            .read_exact(&mut bytes)
            .map_err(Error::io(self.path))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn version(&mut self) -> Result<u32> {
        if self.left() < 4 || self.bytes()? != MAGIC {
            return Err(self.malformed("not a GGUF file"));
        }
        match self.u32()? {
            version @ (2 | 3) => Ok(version),
            version if version & 0xffff == 0 => {
                Err(self.malformed("a big-endian GGUF file is not supported"))
            }
            version => Err(self.malformed(format!(
                "GGUF version {version} is not supported; expected 2 or 3"
            ))),
        }
    }

    /// A number of entries of at least `least` bytes each.
    fn count(&mut self, what: &str, least: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > MAX_ENTRIES || count * least > self.left() {
            return Err(self.malformed(format!(
                "the header claims {count} {what}; the file has {} bytes left, and at most \
                 {MAX_ENTRIES} are supported",
                self.left()
            )));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str, most: u64) -> Result<String> {
        let length = self.u64()?;
        if length > most || length > self.left() {
            return Err(self.malformed(format!(
                "{what} claims {length} bytes; the file has {} left, and at most {most} are \
                 supported",
                self.left()
            )));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(length).read_to_end(&mut bytes);
        let read = read.map_err(Error::io(self.path))? as u64;
        self.position += read;
        if read < length {
            return Err(self.malformed("truncated: the file ends within its header"));
        }
        String::from_utf8(bytes).map_err(|_| self.malformed(format!("{what} is not UTF-8")))
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.kind(key)?;
        if kind != ValueType::Array {
            return self.scalar(key, kind);
        }
        let kind = self.kind(key)?;
        if kind == ValueType::Array {
            return Err(self.malformed(format!("`{key}`: arrays of arrays are not supported")));
        }
        let count = self.u64()?;
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS || count * kind.least_bytes() > self.left() {
            return Err(self.malformed(format!(
                "`{key}` claims {count} values; the file has {} bytes left, and at most \
                 {MAX_ELEMENTS} values are supported",
                self.left()
            )));
        }
        let values = (0..count).map(|_| self.scalar(key, kind));
        Ok(Value::Array(kind, values.collect::<Result<_>>()?))
    }

    fn kind(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32()?;
        ValueType::from_id(id)
            .ok_or_else(|| self.malformed(format!("`{key}` has the unknown type {id}")))
    }

    fn scalar(&mut self, key: &str, kind: ValueType) -> Result<Value> {
        Ok(match kind {
            ValueType::Uint8 => Value::Uint8(u8::from_le_bytes(self.bytes()?)),
            ValueType::Int8 => Value::Int8(i8::from_le_bytes(self.bytes()?)),
            ValueType::Uint16 => Value::Uint16(u16::from_le_bytes(self.bytes()?)),
            ValueType::Int16 => Value::Int16(i16::from_le_bytes(self.bytes()?)),
            ValueType::Uint32 => Value::Uint32(self.u32()?),
            ValueType::Int32 => Value::Int32(i32::from_le_bytes(self.bytes()?)),
            ValueType::Float32 => Value::Float32(f32::from_le_bytes(self.bytes()?)),
            ValueType::Uint64 => Value::Uint64(self.u64()?),
            ValueType::Int64 => Value::Int64(i64::from_le_bytes(self.bytes()?)),
            ValueType::Float64 => Value::Float64(f64::from_le_bytes(self.bytes()?)),
            ValueType::String => Value::String(self.text(&format!("`{key}`"), MAX_TEXT)?),
            ValueType::Bool => match self.bytes()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(self.malformed(format!("`{key}`: {other} is not a boolean")));
                }
            },
            ValueType::Array => {
                return Err(self.malformed(format!("`{key}`: an array within an array")));
            }
        })
    }

    fn alignment(&self, stated: Option<&Value>) -> Result<u64> {
        match stated {
            None => Ok(ALIGNMENT),
            Some(&Value::Uint32(value))
                if value.is_power_of_two() && u64::from(value) <= MAX_ALIGNMENT =>
            {
                Ok(value.into())
            }
            Some(other) => Err(self.malformed(format!(
                "`general.alignment`: expected a power of 2 up to {MAX_ALIGNMENT}, found {other}"
            ))),
        }
    }

    fn tensor(&mut self, alignment: u64) -> Result<(String, TensorInfo)> {
        let name = self.text("the name of a tensor", MAX_NAME as u64)?;
        let dims = self.u32()?;
        if !(1..=MAX_DIMS as u32).contains(&dims) {
            return Err(self.malformed(format!(
                "tensor `{name}`: expected 1 to {MAX_DIMS} dimensions, found {dims}"
            )));
        }
        let mut shape = Vec::with_capacity(MAX_DIMS);
        for _ in 0..dims {
            let dim = self.u64()?;
            shape.push(usize::try_from(dim).map_err(|_| {
                self.malformed(format!(
                    "tensor `{name}`: a dimension of {dim} is too large"
                ))
            })?);
        }
        shape.reverse();
        let id = self.u32()?;
        let Some(kind) = TensorType::from_id(id) else {
            let known = TensorType::ALL.map(|kind| kind.to_string()).join(", ");
            return Err(self.malformed(format!(
                "tensor `{name}` is of ggml type {id}, which is not supported; expected {known}"
            )));
        };
        let offset = self.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(self.malformed(format!(
                "tensor `{name}` has offset {offset}, not a multiple of {alignment}"
            )));
        }
        let bytes = kind
            .bytes(&shape)
            .map_err(|problem| self.malformed(format!("tensor `{name}`: {problem}")))?;
        let info = TensorInfo {
            kind,
            shape,
            offset,
            bytes,
        };
        Ok((name, info))
    }
}
