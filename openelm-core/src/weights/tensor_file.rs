//! One safetensors file of named arrays, written whole or not at all: adapters and training state.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    path::Path,
};

use mlx_rs::{Array, Dtype as MlxDtype};
use safetensors::tensor::{Dtype as FileDtype, Metadata, View, serialize_to_file};

use super::{checkpoint::Checkpoint, parallel_reader::Readers};
use crate::{
    error::{Error, Result},
    files::write_beside,
};

/// Named arrays, in the order of their names.
pub(crate) type Tensors = BTreeMap<String, Array>;

/// Writes `tensors` beside `path` and renames. `metadata` is the file's one entry of that kind
/// (the format orders several by chance): its key and its text.
///
/// # Errors
/// [`Error::Io`] if the disk is full, or the file cannot be written; what was there stays.
pub(crate) fn save<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Array)>,
    metadata: (&str, String),
) -> Result<()> {
    let stored = tensors
        .into_iter()
        .map(|(name, array)| Ok((name, ArrayBytes::new(path, name, array)?)))
        .collect::<Result<Vec<_>>>()?;
    let views = stored
        .iter()
        .map(|(name, stored)| Ok((name, stored.view(path, name)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([(metadata.0.to_owned(), metadata.1)]);
    write_beside(path, |partial| {
        // Made here, with the permissions that the user's files have: the library's are its own.
        File::create(partial).map_err(Error::io(path))?;
        serialize_to_file(views, Some(metadata), partial).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => Error::io(path)(source),
            other => Error::checkpoint(path, other.to_string()),
        })
    })
}

/// Reads a file's arrays as they are stored.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if the file is malformed.
pub(crate) fn load(path: &Path) -> Result<Tensors> {
    let checkpoint = Checkpoint::open_file(path)?;
    let mut readers = Readers::open(&checkpoint)?;
    let names = checkpoint.tensors().keys();
    names
        .map(|name| Ok((name.clone(), readers.next().take(name)?)))
        .collect()
}

/// The text that a file's metadata has under `key`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if there is none.
pub(crate) fn metadata(path: &Path, key: &str) -> Result<String> {
    let malformed = |problem: String| Error::checkpoint(path, problem);
    // Checks the header's length, so that it can be believed below.
    Checkpoint::open_file(path)?;
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(Error::io(path))?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(size))
        .read_to_end(&mut header)
        .map_err(Error::io(path))?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    let found = header.metadata().as_ref().and_then(|all| all.get(key));
    found
        .cloned()
        .ok_or_else(|| malformed(format!("its metadata has no `{key}`")))
}

/// An array as the bytes of a file.
struct ArrayBytes {
    /// u8, evaluated and contiguous.
    bytes: Array,
    dtype: FileDtype,
    shape: Vec<usize>,
}

struct ArrayView<'a> {
    data: &'a [u8],
    dtype: FileDtype,
    shape: &'a [usize],
}

impl ArrayBytes {
    /// `path` and `name` are for errors.
    fn new(path: &Path, name: &str, array: &Array) -> Result<Self> {
        let dtype = match array.dtype() {
            MlxDtype::Float32 => FileDtype::F32,
            MlxDtype::Float16 => FileDtype::F16,
            MlxDtype::Bfloat16 => FileDtype::BF16,
            MlxDtype::Uint32 => FileDtype::U32,
            MlxDtype::Uint8 => FileDtype::U8,
            other => {
                return Err(Error::TensorDtype {
                    path: path.to_path_buf(),
                    name: name.into(),
                    found: format!("{other:?}"),
                });
            }
        };
        let bytes = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
        bytes.eval()?;
        Ok(Self {
            shape: array.shape().iter().map(|&n| n as usize).collect(),
            dtype,
            bytes,
        })
    }

    fn view(&self, path: &Path, name: &str) -> Result<ArrayView<'_>> {
        let data = self.bytes.try_as_slice::<u8>();
        Ok(ArrayView {
            data: data
                .map_err(|error| Error::checkpoint(path, format!("tensor `{name}`: {error}")))?,
            dtype: self.dtype,
            shape: &self.shape,
        })
    }
}

impl View for ArrayView<'_> {
    fn dtype(&self) -> FileDtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// The path of a stored tensor type that is not a floating-point one.
pub(crate) fn require_float(path: &Path, tensors: &Tensors) -> Result<()> {
    let Some((name, array)) = tensors.iter().find(|(_, array)| !is_float(array)) else {
        return Ok(());
    };
    Err(Error::TensorDtype {
        path: path.to_path_buf(),
        name: name.clone(),
        found: format!("{:?}", array.dtype()),
    })
}

fn is_float(array: &Array) -> bool {
    matches!(
        array.dtype(),
        MlxDtype::Float32 | MlxDtype::Float16 | MlxDtype::Bfloat16
    )
}
