//! Writes a state dict as `torch.save` does since PyTorch 1.6: a zip archive without compression
//! (PKWARE's APPNOTE.TXT), with a pickle of protocol 2 that `torch.load(weights_only=True)` reads.
//!
//! Each storage begins at a multiple of 64 bytes, as in PyTorch's files, which can be mapped.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::Crc;
use mlx_rs::{Array, Dtype as MlxDtype};

use crate::{
    error::{Error, Result},
    mlx::Dtype,
};

/// The folder in the archive.
const FOLDER: &str = "archive";
/// Alignment of the storages, in bytes.
const ALIGNMENT: u64 = 64;
/// Size of a local header without name and extra field.
const LOCAL: u64 = 30;
/// Version to extract: 64-bit sizes.
const VERSION: u16 = 45;
/// The extra fields of 64-bit sizes, and of PyTorch's padding.
const ZIP64: u16 = 1;
const PADDING: u16 = 0x4246;

/// A tensor to write.
#[derive(Debug, Clone)]
pub(crate) struct NewTorchTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl NewTorchTensor {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A PyTorch file in progress. Its tensors are written in order.
pub(crate) struct TorchWriter {
    /// The path for errors.
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes written.
    position: u64,
    entries: Vec<Entry>,
    tensors: std::vec::IntoIter<NewTorchTensor>,
    written: usize,
}

/// An entry of the archive.
struct Entry {
    name: String,
    checksum: u32,
    len: u64,
    /// Offset of the local header.
    header: u64,
}

impl TorchWriter {
    /// Creates the file at `path` and writes the pickle of the state dict of `tensors`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(path: &Path, tensors: Vec<NewTorchTensor>) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path))?;
        let pickle = pickle(&tensors);
        let mut writer = Self {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 20, file),
            position: 0,
            entries: Vec::new(),
            tensors: tensors.into_iter(),
            written: 0,
        };
        writer.entry("data.pkl", &pickle)?;
        writer.entry("byteorder", b"little")?;
        Ok(writer)
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// [`Error::TensorShape`] or [`Error::UnexpectedTensor`] if it is not the next tensor;
    /// [`Error::Io`].
    pub(crate) fn write(&mut self, array: &Array) -> Result<()> {
        let path = self.path.clone();
        let found = array.shape().iter().map(|&size| size as usize).collect();
        let Some(tensor) = self.tensors.next() else {
            let name = format!("{found:?}");
            return Err(Error::UnexpectedTensor { path, name });
        };
        if array.dtype() != tensor.dtype.mlx() || found != tensor.shape {
            return Err(Error::TensorShape {
                path,
                name: tensor.name,
                expected: tensor.shape,
                found,
            });
        }
        let bytes = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
        let bytes = bytes.try_as_slice::<u8>().map_err(|error| {
            Error::checkpoint(&path, format!("tensor `{}`: {error}", tensor.name))
        })?;
        let key = format!("data/{}", self.written);
        self.written += 1;
        self.entry(&key, bytes)
    }

    /// Writes the directory and flushes the file to the disk.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if tensors were not written; [`Error::Io`].
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(missing) = self.tensors.next() {
            return Err(Error::MissingTensor {
                path: self.path,
                name: missing.name,
                shape: missing.shape,
            });
        }
        self.entry("version", b"3\n")?;
        let start = self.position;
        for entry in std::mem::take(&mut self.entries) {
            self.put(&entry.directory())?;
            self.entries.push(entry);
        }
        let end = end(self.entries.len() as u64, start, self.position);
        self.put(&end)?;
        let Self { path, file, .. } = self;
        let file = file.into_inner();
        let file = file.map_err(|error| Error::io(&path)(error.into_error()))?;
        file.sync_data().map_err(Error::io(&path))
    }

    /// Writes an entry.
    fn entry(&mut self, name: &str, data: &[u8]) -> Result<()> {
        let mut checksum = Crc::new();
        checksum.update(data);
        let entry = Entry {
            name: format!("{FOLDER}/{name}"),
            checksum: checksum.sum(),
            len: data.len() as u64,
            header: self.position,
        };
        self.put(&entry.local())?;
        self.put(data)?;
        self.entries.push(entry);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

impl Entry {
    /// The local header, padded so that the data are aligned.
    fn local(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if is_wide(self.len) {
            extra.extend(ZIP64.to_le_bytes());
            extra.extend(16_u16.to_le_bytes());
            extra.extend([self.len.to_le_bytes(), self.len.to_le_bytes()].concat());
        }
        let before = self.header + LOCAL + (self.name.len() + extra.len()) as u64 + 4;
        let padding = before.next_multiple_of(ALIGNMENT) - before;
        extra.extend(PADDING.to_le_bytes());
        extra.extend((padding as u16).to_le_bytes());
        extra.extend(vec![b'Z'; padding as usize]);
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(self.shared(extra.len()));
        header.extend(self.name.as_bytes());
        header.extend(extra);
        header
    }

    /// The entry of the directory.
    fn directory(&self) -> Vec<u8> {
        let mut wide = Vec::new();
        if is_wide(self.len) {
            wide.extend([self.len.to_le_bytes(), self.len.to_le_bytes()].concat());
        }
        if is_wide(self.header) {
            wide.extend(self.header.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !wide.is_empty() {
            extra.extend(ZIP64.to_le_bytes());
            extra.extend((wide.len() as u16).to_le_bytes());
            extra.extend(wide);
        }
        let mut bytes = b"PK\x01\x02".to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.shared(extra.len()));
        // Comment, disk, attributes.
        bytes.extend([0; 10]);
        bytes.extend(narrow(self.header).to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(extra);
        bytes
    }

    /// The fields from the version to the length of the extra field.
    fn shared(&self, extra: usize) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        // Flags: UTF-8 names; no compression; no time; the first day of the format, 1980-01-01.
        bytes.extend([0x0800_u16, 0, 0, 0x21].map(u16::to_le_bytes).concat());
        bytes.extend(self.checksum.to_le_bytes());
        let len = narrow(self.len).to_le_bytes();
        bytes.extend([len, len].concat());
        let lengths = [self.name.len() as u16, extra as u16];
        bytes.extend(lengths.map(u16::to_le_bytes).concat());
        bytes
    }
}

/// The end of the directory, with 64-bit fields before it if one is needed.
fn end(count: u64, start: u64, end: u64) -> Vec<u8> {
    let len = end - start;
    let mut bytes = Vec::new();
    if count >= u64::from(u16::MAX) || is_wide(start) || is_wide(len) {
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44_u64.to_le_bytes());
        bytes.extend([VERSION, VERSION].map(u16::to_le_bytes).concat());
        bytes.extend([0; 8]);
        bytes.extend([count, count, len, start].map(u64::to_le_bytes).concat());
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend(end.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
    }
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].map(u16::to_le_bytes).concat());
    bytes.extend([narrow(len), narrow(start)].map(u32::to_le_bytes).concat());
    bytes.extend([0; 2]);
    bytes
}

/// True for a value that 32 bits cannot hold; the largest one refers to the extra field.
fn is_wide(value: u64) -> bool {
    value >= u64::from(u32::MAX)
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// An `OrderedDict` of tensors, one storage each.
fn pickle(tensors: &[NewTorchTensor]) -> Vec<u8> {
    const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut bytes = [b"\x80\x02", ORDERED_DICT, b"("].concat();
    for (key, tensor) in tensors.iter().enumerate() {
        let class = match tensor.dtype {
            Dtype::Float32 => "FloatStorage",
            Dtype::Float16 => "HalfStorage",
            Dtype::Bfloat16 => "BFloat16Storage",
        };
        bytes.extend(text(&tensor.name));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{class}\n").as_bytes());
        bytes.extend(text(&key.to_string()));
        bytes.extend(text("cpu"));
        bytes.extend(number(tensor.elements()));
        // The end of the storage's id, and the offset of the tensor.
        bytes.extend(b"tQK\0");
        bytes.extend(numbers(&tensor.shape));
        bytes.extend(numbers(&strides(&tensor.shape)));
        // No gradient, no hooks.
        bytes.push(0x89);
        bytes.extend(ORDERED_DICT);
        bytes.extend(b"tR");
    }
    bytes.extend(b"u.");
    bytes
}

/// Row-major strides in elements.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1;
    for (stride, size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step *= size;
    }
    strides
}

fn text(value: &str) -> Vec<u8> {
    let len = (value.len() as u32).to_le_bytes();
    [b"X", &len[..], value.as_bytes()].concat()
}

/// A natural number: LONG1 of eight bytes, whose sign bit is 0.
fn number(value: usize) -> Vec<u8> {
    match i32::try_from(value) {
        Ok(value) => [b"J", &value.to_le_bytes()[..]].concat(),
        Err(_) => [b"\x8a\x08", &(value as u64).to_le_bytes()[..]].concat(),
    }
}

fn numbers(values: &[usize]) -> Vec<u8> {
    let items: Vec<u8> = values.iter().flat_map(|&value| number(value)).collect();
    [b"(", &items[..], b"t"].concat()
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;
    use crate::formats::torch::TorchFile;

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> NewTorchTensor {
        NewTorchTensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn written_tensors_are_read_back() {
        let folder = TempDir::new();
        let path = folder.join("weights.pt");
        let tensors = vec![
            tensor("b", Dtype::Float32, &[2, 3]),
            tensor("a", Dtype::Bfloat16, &[4]),
        ];
        let floats = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let halves = Array::from_slice(&[0.5_f32, -1.0, 2.0, 8.0], &[4]);
        let halves = halves.as_dtype(MlxDtype::Bfloat16).unwrap();
        let mut writer = TorchWriter::create(&path, tensors.clone()).unwrap();
        writer.write(&floats).unwrap();
        writer.write(&halves).unwrap();
        writer.finish().unwrap();
        let file = TorchFile::open(&path).unwrap();
        let read = |name: &str| file.read_floats(&file.tensors()[name]).unwrap();
        assert_eq!(read("b"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(read("a"), [0.5, -1.0, 2.0, 8.0]);
        // PyTorch maps storages: their data are aligned.
        let bytes = std::fs::read(&path).unwrap();
        let data = [1.0_f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
        let at = bytes.windows(12).position(|window| window == data).unwrap();
        assert_eq!(at % 64, 0);

        let mut writer = TorchWriter::create(&path, tensors.clone()).unwrap();
        let message = writer.write(&halves).unwrap_err().to_string();
        assert!(message.contains("`b`"), "{message}");
        let writer = TorchWriter::create(&path, tensors).unwrap();
        assert!(writer.finish().is_err());
    }

    #[test]
    fn wide_values_are_in_extra_fields() {
        let entry = Entry {
            name: "archive/data/0".into(),
            checksum: 0,
            len: 5 << 30,
            header: 7 << 30,
        };
        let (local, directory) = (entry.local(), entry.directory());
        assert_eq!((local.len() as u64 + entry.header) % 64, 0);
        assert_eq!(&local[18..26], [0xff; 8]);
        let wide = [5_u64 << 30, 5 << 30, 7 << 30]
            .map(u64::to_le_bytes)
            .concat();
        assert!(directory.ends_with(&wide));
        assert_eq!(end(3, 7 << 30, 8 << 30).len(), 56 + 20 + 22);
        assert_eq!(end(3, 100, 200).len(), 22);
    }
}
