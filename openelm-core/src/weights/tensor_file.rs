//! One safetensors file of named arrays, written atomically: adapters and training state.

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

/// Writes `tensors` to a file beside `path` and renames it. `metadata` is the key and text of the
/// file's only metadata entry; the format leaves the order of several undefined.
///
/// # Errors
/// [`Error::Io`] if the disk is full or the file cannot be written; an existing file stays.
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
        // Created here for the default permissions of the user; the library sets its own.
        File::create(partial).map_err(Error::io(path))?;
        serialize_to_file(views, Some(metadata), partial).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => Error::io(path)(source),
            other => Error::checkpoint(path, other.to_string()),
        })
    })
}

/// Reads a file's arrays in their stored types.
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

/// The metadata text of a file under `key`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if there is no such entry.
pub(crate) fn metadata(path: &Path, key: &str) -> Result<String> {
    let malformed = |problem: String| Error::checkpoint(path, problem);
    // Checks the header's length, which the code below relies on.
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
    /// Errors name `path` and `name`.
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

/// Refuses tensors of a type that is not floating-point; errors name `path`.
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
