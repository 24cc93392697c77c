//! Writer of a GGUF file, version 3: the header first, then each tensor's data.

use std::{collections::HashSet, io::Write, path::PathBuf};

use super::{
    header::{ALIGNMENT, MAGIC, MAX_NAME},
    quantize::quantize,
    tensor_type::TensorType,
    value::Value,
};
use crate::error::{Error, Result};

/// Elements that are converted to bytes at a time; whole blocks of every type.
const CHUNK: usize = 1 << 16;

/// A GGUF file being written.
#[derive(Debug)]
pub struct GgufWriter<W> {
    target: W,
    path: PathBuf,
    tensors: Vec<TensorSpec>,
    /// Index of the tensor in progress, and the number of its written elements.
    current: usize,
    written: usize,
    buffer: Vec<u8>,
}

/// A tensor of a file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, of at most 63 bytes.
    pub name: String,
    /// Storage type: F32, F16, BF16, Q8_0 or Q4_0.
    pub kind: TensorType,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl<W: Write> GgufWriter<W> {
    /// Writes the header of the file. `target` should be buffered; errors name `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] for a key or a tensor that the format does not support or that occurs
    /// twice, [`Error::Io`] if writing fails.
    pub fn new(
        target: W,
        path: impl Into<PathBuf>,
        metadata: &[(String, Value)],
        tensors: Vec<TensorSpec>,
    ) -> Result<Self> {
        let mut writer = Self {
            target,
            path: path.into(),
            tensors,
            current: 0,
            written: 0,
            buffer: Vec::new(),
        };
        let head = head(metadata, &writer.tensors).map_err(|problem| writer.refused(problem))?;
        writer.put(&head)?;
        Ok(writer)
    }

    /// Writes the next elements of a tensor, all of them or some rows. Tensors must come in the
    /// order of the header.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if `name` is not the next tensor, if `values` are not whole rows or
    /// more than the rest of the tensor, or if its type cannot represent a value; [`Error::Io`] if
    /// writing fails.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let Some(spec) = self.tensors.get(self.current) else {
            return Err(self.refused(format!("tensor `{name}` is not in the header")));
        };
        if spec.name != name {
            let problem = format!("expected tensor `{}`, found `{name}`", spec.name);
            return Err(self.refused(problem));
        }
        let (kind, elements) = (spec.kind, elements(&spec.shape));
        let row = spec.shape.last().copied().unwrap_or(1);
        let left = elements - self.written;
        if values.len() > left || !values.len().is_multiple_of(row) {
            return Err(self.refused(format!(
                "tensor `{name}`: expected rows of {row}, at most {left} elements, found {}",
                values.len()
            )));
        }
        for chunk in values.chunks(CHUNK) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.clear();
            quantize(kind, chunk, &mut bytes)
                .map_err(|problem| self.refused(format!("tensor `{name}`: {problem}")))?;
            self.put(&bytes)?;
            self.buffer = bytes;
        }
        self.written += values.len();
        if self.written == elements {
            let bytes = elements / kind.block_elements() * kind.block_bytes();
            self.put(padding(bytes))?;
            (self.current, self.written) = (self.current + 1, 0);
        }
        Ok(())
    }

    /// Ends the file and returns the flushed target.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if a tensor is incomplete, [`Error::Io`] if writing fails.
    pub fn finish(mut self) -> Result<W> {
        if let Some(spec) = self.tensors.get(self.current) {
            return Err(self.refused(format!("tensor `{}` is not completely written", spec.name)));
        }
        self.target.flush().map_err(Error::io(&self.path))?;
        Ok(self.target)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.target.write_all(bytes).map_err(Error::io(&self.path))
    }

    fn refused(&self, problem: String) -> Error {
        Error::checkpoint(&self.path, problem)
    }
}

/// The product, which is in range by `TensorType::bytes`.
fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Zeros that pad `bytes` to a multiple of the alignment.
fn padding(bytes: usize) -> &'static [u8] {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    let over = bytes % ZEROS.len();
    ZEROS.get(over..).filter(|_| over > 0).unwrap_or_default()
}

/// The header, padded to the start of the data.
fn head(metadata: &[(String, Value)], tensors: &[TensorSpec]) -> Result<Vec<u8>, String> {
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let mut seen = HashSet::new();
    for (key, value) in metadata {
        if key.is_empty() || key == "general.alignment" || !seen.insert(key) {
            return Err(format!(
                "the key `{key}` is empty, reserved or occurs twice"
            ));
        }
        put_text(&mut out, key);
        out.extend((value.kind() as u32).to_le_bytes());
        put_value(&mut out, value).map_err(|problem| format!("`{key}`: {problem}"))?;
    }
    let mut offset = 0u64;
    let mut seen = HashSet::new();
    for TensorSpec { name, kind, shape } in tensors {
        let refused = |problem: String| format!("tensor `{name}`: {problem}");
        if name.is_empty() || name.len() > MAX_NAME || !seen.insert(name) {
            return Err(refused(
                "the name is empty, too long or occurs twice".into(),
            ));
        }
        let bytes = kind.bytes(shape).map_err(refused)?;
        put_text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        for dim in shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(kind.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = offset
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
            .ok_or_else(|| refused("the file would be too large".into()))?;
    }
    out.extend(padding(out.len()));
    Ok(out)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<(), String> {
    match value {
        Value::Uint8(value) => out.push(*value),
        Value::Int8(value) => out.extend(value.to_le_bytes()),
        Value::Uint16(value) => out.extend(value.to_le_bytes()),
        Value::Int16(value) => out.extend(value.to_le_bytes()),
        Value::Uint32(value) => out.extend(value.to_le_bytes()),
        Value::Int32(value) => out.extend(value.to_le_bytes()),
        Value::Float32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push((*value).into()),
        Value::String(text) => put_text(out, text),
        Value::Uint64(value) => out.extend(value.to_le_bytes()),
        Value::Int64(value) => out.extend(value.to_le_bytes()),
        Value::Float64(value) => out.extend(value.to_le_bytes()),
        Value::Array(kind, values) => {
            out.extend((*kind as u32).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            for value in values {
                if value.kind() != *kind || value.as_array().is_some() {
                    return Err(format!("an array of {kind:?} holds {value}"));
                }
                put_value(out, value)?;
            }
        }
    }
    Ok(())
}
