//! The weights of a PyTorch file.

use std::{collections::BTreeMap, path::Path};

use super::{
    archive::{self, Archive},
    bytes::{Span, TorchBytes},
    legacy::{self, Legacy},
    state_dict,
    strided::Strided,
};
use crate::{
    error::{Error, Result},
    formats::torch::pickle::{Storage, Tensor, Tree},
    mlx::Dtype,
};

/// The checked names, shapes and types of the weights in a PyTorch file. Holds no weights.
#[derive(Debug)]
pub struct TorchFile {
    source: TorchBytes,
    tensors: BTreeMap<String, TorchTensor>,
}

/// One tensor of a [`TorchFile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchTensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Range of the elements in the file.
    span: Span,
    /// Layout of the elements.
    strided: Strided,
}

impl TorchTensor {
    /// Size in bytes, as [`TorchFile::read`] returns it.
    pub fn bytes(&self) -> usize {
        self.strided.elements().saturating_mul(self.dtype.size())
    }
}

impl TorchFile {
    /// Reads the list of a file's tensors: its `model_state_dict` or, without one, the
    /// file itself. The prefix `module.` of PyTorch's `DataParallel` is removed from the names if
    /// all have it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is malformed, written
    /// on a big-endian machine, compressed, or refers to objects that are not weights, and
    /// [`Error::TensorDtype`] for a tensor that is not F32, F16 or BF16.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, false)
    }

    /// Like [`TorchFile::open`]; with `ema`, the tensors come from `ema_state_dict`, the moving
    /// average of a training run's weights.
    ///
    /// # Errors
    /// As [`TorchFile::open`], and [`Error::Checkpoint`] if there is no `ema_state_dict`.
    pub fn open_with(path: impl AsRef<Path>, ema: bool) -> Result<Self> {
        let source = TorchBytes::open(path.as_ref())?;
        let tensors = if archive::is_zip(&source)? {
            let archive = Archive::open(&source)?;
            let pickle = archive.pickle(&source)?;
            let (tree, _) = crate::formats::torch::pickle::read(&pickle)
                .map_err(|problem| source.malformed(problem))?;
            collect(&source, &tree, ema, |storage| {
                archive.find(&source, storage)
            })?
        } else {
            let head = legacy::head(&source)?;
            let (tree, legacy) = Legacy::open(&source, &head)?;
            collect(&source, &tree, ema, |storage| legacy.find(&source, storage))?
        };
        Ok(Self { source, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Every tensor by its name.
    pub fn tensors(&self) -> &BTreeMap<String, TorchTensor> {
        &self.tensors
    }

    /// The values of one tensor, row-major and little-endian for any strides. Reads only the range
    /// from its first to its last element in the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such tensor or not enough memory, [`Error::Io`] if the
    /// file can no longer be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            self.source
                .malformed(format!("there is no tensor `{}`", name.escape_debug()))
        })?;
        let stored = self.source.read(tensor.span)?;
        if tensor.strided.is_contiguous() {
            return Ok(stored);
        }
        let mut values = self.source.buffer(tensor.bytes())?;
        tensor
            .strided
            .gather(&stored, tensor.dtype.size(), &mut values);
        Ok(values)
    }
}

/// The tensors of the state dict, each checked against its storage; `find` returns the bytes of
/// a storage in the file.
fn collect(
    source: &TorchBytes,
    tree: &Tree<'_>,
    ema: bool,
    find: impl Fn(Storage<'_>) -> Result<Span>,
) -> Result<BTreeMap<String, TorchTensor>> {
    let mut tensors = BTreeMap::new();
    for (name, value) in
        state_dict::entries(tree, ema).map_err(|problem| source.malformed(problem))?
    {
        let Some((tensor, storage)) = tree.tensor(value) else {
            return Err(source.malformed(format!(
                "`{name}` is {}; expected a tensor",
                tree.describe(value)
            )));
        };
        let Some(dtype) = storage.element.dtype() else {
            return Err(Error::TensorDtype {
                path: source.path().to_path_buf(),
                name,
                found: storage.element.name().into(),
            });
        };
        let found = find(storage)?;
        let tensor = place(dtype, tensor, found)
            .map_err(|problem| source.malformed(format!("tensor `{name}`: {problem}")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(source.malformed(format!("tensor `{name}` occurs twice")));
        }
    }
    Ok(tensors)
}

/// Locates a tensor in its storage. It must not have more elements than the storage, so that the
/// file's size bounds every buffer.
fn place(dtype: Dtype, tensor: &Tensor, storage: Span) -> Result<TorchTensor, String> {
    let strided = Strided::new(&tensor.shape, &tensor.strides)
        .ok_or_else(|| format!("shape {:?} is too large", tensor.shape))?;
    let size = dtype.size() as u64;
    let len = storage.len / size;
    let reach = strided.reach() as u64;
    let end = tensor.offset.checked_add(reach);
    if end.is_none_or(|end| end > len) {
        return Err(format!(
            "shape {:?}, strides {:?} and offset {} exceed its storage of {len} elements",
            tensor.shape, tensor.strides, tensor.offset
        ));
    }
    if strided.elements() as u64 > len {
        return Err(format!(
            "shape {:?} is a view that repeats elements of a storage of {len}; save a copy of it",
            tensor.shape
        ));
    }
    // Both products are within the storage, so there is no overflow.
    let start = storage
        .start
        .saturating_add(tensor.offset.saturating_mul(size));
    Ok(TorchTensor {
        dtype,
        shape: tensor.shape.clone(),
        span: Span {
            start,
            len: reach.saturating_mul(size),
        },
        strided,
    })
}
