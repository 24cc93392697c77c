//! Finds and checks a checkpoint's safetensors files before any computation.
//!
//! A checkpoint is a folder in the layout of Hugging Face and mlx-lm: `config.json` and either
//! `model.safetensors`, or shards that `model.safetensors.index.json` lists. An index may remain
//! from earlier shards: if one is missing, a `model.safetensors` with every tensor of the index is
//! the checkpoint. Without an index, the files `model*.safetensors` together are, as in mlx-lm.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    derived::{check_inv_freq, is_inv_freq},
    layout::{INDEX, Layout, SINGLE},
    safetensors_header::{check_listed, read_header},
    stored_tensor::{StoredDtype, StoredTensor},
};
use crate::{
    config::Config,
    error::{Error, Result},
    hub_cache,
    lookup::folder_of,
    mlx::Dtype,
};

/// Checked names, shapes and types of a checkpoint's tensors. Holds no weights.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, StoredTensor>,
    /// Tensors that follow from the configuration.
    derived: BTreeMap<String, StoredTensor>,
}

/// A shape, and the integer type that the tensor must have, if any.
type Expected = (Option<StoredDtype>, Vec<usize>);

impl Checkpoint {
    /// Reads the headers of the weight files in a model folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::MissingFile`] if a file cannot be read or does not exist,
    /// [`Error::Checkpoint`] if one is malformed or does not match the index, and
    /// [`Error::TensorDtype`] for a tensor that is neither floating-point nor quantised.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = hub_cache::resolve(folder.as_ref(), &["config.json", INDEX, SINGLE])?;
        let index = folder.join(INDEX);
        let Layout { files, listed } = Layout::find(&folder, &index)?;
        let mut tensors = BTreeMap::new();
        for file in &files {
            for (name, tensor) in read_header(file)? {
                if let Some(listed) = &listed {
                    check_listed(&index, listed, &name, file)?;
                }
                if let Some(StoredTensor { file: other, .. }) = tensors.insert(name.clone(), tensor)
                {
                    return Err(Error::checkpoint(
                        file,
                        format!("tensor `{name}` is also in {}", other.display()),
                    ));
                }
            }
        }
        for (name, file) in listed.iter().flatten() {
            if !tensors.contains_key(name) {
                return Err(Error::checkpoint(
                    folder.join(file),
                    format!(
                        "tensor `{name}` is missing, which {} lists",
                        index.display()
                    ),
                ));
            }
        }
        let derived = tensors
            .extract_if(.., |name, _| is_inv_freq(name))
            .collect();
        Ok(Self {
            folder,
            files,
            tensors,
            derived,
        })
    }

    /// Reads the header of one weight file of any name.
    pub(crate) fn open_file(file: &Path) -> Result<Self> {
        Ok(Self {
            folder: folder_of(file),
            files: vec![file.to_path_buf()],
            tensors: read_header(file)?.into_iter().collect(),
            derived: BTreeMap::new(),
        })
    }

    /// Checks that the tensors match `config` exactly, in name and shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`], and
    /// [`Error::Checkpoint`] for stored rotary frequencies that contradict `config`.
    pub fn check(&self, config: &Config) -> Result<()> {
        for (name, stored) in &self.derived {
            check_inv_freq(name, stored, config)?;
        }
        let expected = self.expected(config)?;
        for (name, (packed, shape)) in &expected {
            let Some(stored) = self.tensors.get(name) else {
                return Err(Error::MissingTensor {
                    path: self.folder.clone(),
                    name: name.clone(),
                    shape: shape.clone(),
                });
            };
            if stored.shape != *shape {
                return Err(Error::TensorShape {
                    path: stored.file.clone(),
                    name: name.clone(),
                    expected: shape.clone(),
                    found: stored.shape.clone(),
                });
            }
            let fits = match packed {
                Some(dtype) => stored.dtype == *dtype,
                None => matches!(stored.dtype, StoredDtype::Float(_)),
            };
            if !fits {
                return Err(Error::TensorDtype {
                    path: stored.file.clone(),
                    name: name.clone(),
                    found: stored.dtype.name().into(),
                });
            }
        }
        match self
            .tensors
            .iter()
            .find(|(name, _)| !expected.contains_key(*name))
        {
            Some((name, stored)) => Err(Error::UnexpectedTensor {
                path: stored.file.clone(),
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The tensors that `config` requires: integer type, if any, and shape.
    fn expected(&self, config: &Config) -> Result<BTreeMap<String, Expected>> {
        let quantization = config.quantization_map().map_err(|error| match error {
            // The configuration has no path.
            Error::Config { key, problem, .. } => {
                Error::config(self.folder.join("config.json"), key, problem)
            }
            other => other,
        })?;
        let mut expected = BTreeMap::new();
        for (name, shape) in config.tensors() {
            let stem = name.strip_suffix(".weight").unwrap_or(&name);
            let packed = quantization.as_ref().and_then(|map| map.layer(stem));
            match (packed, shape.as_slice()) {
                // mlx-lm's rule: a matrix with scales is quantised.
                (Some(packing), &[rows, width]) if packing.fits(width) && self.is_packed(stem) => {
                    let scales = packing.scales_shape(rows, width).to_vec();
                    let bytes = (!packing.has_biases()).then_some(StoredDtype::Uint8);
                    let weight = packing.packed_shape(rows, width).to_vec();
                    if packing.has_biases() {
                        expected.insert(format!("{stem}.biases"), (None, scales.clone()));
                    }
                    expected.insert(format!("{stem}.scales"), (bytes, scales));
                    expected.insert(name, (Some(StoredDtype::Uint32), weight));
                }
                _ => {
                    expected.insert(name, (None, shape));
                }
            }
        }
        Ok(expected)
    }

    /// True if the matrix `stem` (its tensor's name without `.weight`) is stored quantised.
    pub(crate) fn is_packed(&self, stem: &str) -> bool {
        self.tensors.contains_key(&format!("{stem}.scales"))
    }

    /// Refuses a file that changed since it was opened: MLX trusts every header, and leaves
    /// values that it cannot read undefined without an error.
    pub(crate) fn check_unchanged(&self, file: &Path) -> Result<()> {
        let now: BTreeMap<String, StoredTensor> = read_header(file)?.into_iter().collect();
        let then = self.tensors.iter().chain(&self.derived);
        let then: BTreeMap<_, _> = then.filter(|(_, t)| t.file == file).collect();
        if then.into_iter().eq(now.iter()) {
            return Ok(());
        }
        Err(Error::checkpoint(
            file,
            "the file changed while the model was loaded",
        ))
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The weight files, in order of their names.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Every tensor by its checkpoint name.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// The type in which most elements are stored.
    pub fn dtype(&self) -> Dtype {
        let elements = |dtype| {
            self.tensors
                .values()
                .filter(|tensor| tensor.dtype == StoredDtype::Float(dtype))
                .map(|tensor| tensor.shape.iter().product::<usize>())
                .sum::<usize>()
        };
        [Dtype::Bfloat16, Dtype::Float16, Dtype::Float32]
            .into_iter()
            .max_by_key(|&dtype| elements(dtype))
            .unwrap_or(Dtype::Float32)
    }

    /// Size of all tensors in the files, in bytes.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(StoredTensor::bytes).sum()
    }
}
