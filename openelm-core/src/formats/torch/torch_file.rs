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
    formats::torch::pickle::{Storage, Tensor, Tree, Value},
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

    /// The values, row-major and little-endian.
    pub(super) fn read(&self, source: &TorchBytes) -> Result<Vec<u8>> {
        let stored = source.read(self.span)?;
        if self.strided.is_contiguous() {
            return Ok(stored);
        }
        let mut values = source.buffer(self.bytes())?;
        self.strided.gather(&stored, self.dtype.size(), &mut values);
        Ok(values)
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
        let tensors = with_tree(&source, |tree, find| {
            let entries = state_dict::entries(tree, ema);
            let entries = entries.map_err(|problem| source.malformed(problem))?;
            collect(&source, tree, entries, find)
        })?;
        Ok(Self { source, tensors })
    }

    /// The tensors of an open file.
    pub(super) fn new(source: TorchBytes, tensors: BTreeMap<String, TorchTensor>) -> Self {
        Self { source, tensors }
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
        tensor.read(&self.source)
    }

    /// The values of a tensor of this file as f32, row-major.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_floats(&self, tensor: &TorchTensor) -> Result<Vec<f32>> {
        Ok(floats(&tensor.read(&self.source)?, tensor.dtype))
    }
}

/// The floats in `bytes`, little-endian and of type `dtype`, as f32.
fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let pairs = bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::Float32 => {
            let words = bytes.as_chunks::<4>().0.iter().copied();
            words.map(f32::from_le_bytes).collect()
        }
        Dtype::Float16 => pairs
            .map(|pair| half::f16::from_le_bytes(pair).to_f32())
            .collect(),
        Dtype::Bfloat16 => pairs
            .map(|pair| half::bf16::from_le_bytes(pair).to_f32())
            .collect(),
    }
}

/// Finds the bytes of a storage in a file.
pub(super) type Find<'f> = &'f dyn Fn(Storage<'_>) -> Result<Span>;

/// The result of `read` for the saved object of a file.
pub(super) fn with_tree<T>(
    source: &TorchBytes,
    read: impl FnOnce(&Tree<'_>, Find<'_>) -> Result<T>,
) -> Result<T> {
    if archive::is_zip(source)? {
        let archive = Archive::open(source)?;
        let pickle = archive.pickle(source)?;
        let (tree, _) = crate::formats::torch::pickle::read(&pickle)
            .map_err(|problem| source.malformed(problem))?;
        read(&tree, &|storage| archive.find(source, storage))
    } else {
        let head = legacy::head(source)?;
        let (tree, legacy) = Legacy::open(source, &head)?;
        read(&tree, &|storage| legacy.find(source, storage))
    }
}

/// The tensors of the state dict `entries`, each checked against its storage.
pub(super) fn collect(
    source: &TorchBytes,
    tree: &Tree<'_>,
    entries: Vec<(String, Value<'_>)>,
    find: Find<'_>,
) -> Result<BTreeMap<String, TorchTensor>> {
    let mut tensors = BTreeMap::new();
    for (name, value) in entries {
        let tensor = tensor(source, tree, &name, value, find)?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(source.malformed(format!("tensor `{name}` occurs twice")));
        }
    }
    Ok(tensors)
}

/// The tensor `value`, checked against its storage; errors call it `name`.
pub(super) fn tensor(
    source: &TorchBytes,
    tree: &Tree<'_>,
    name: &str,
    value: Value<'_>,
    find: Find<'_>,
) -> Result<TorchTensor> {
    let Some((tensor, storage)) = tree.tensor(value) else {
        return Err(source.malformed(format!(
            "`{name}` is {}; expected a tensor",
            tree.describe(value)
        )));
    };
    let Some(dtype) = storage.element.dtype() else {
        return Err(Error::TensorDtype {
            path: source.path().to_path_buf(),
            name: name.to_owned(),
            found: storage.element.name().into(),
        });
    };
    let found = find(storage)?;
    place(dtype, tensor, found)
        .map_err(|problem| source.malformed(format!("tensor `{name}`: {problem}")))
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
