//! Reading a checked checkpoint into MLX arrays, one tensor at a time.

use std::{collections::HashMap, path::Path};

use mlx_rs::{Array, error::IoError};

use crate::{
    checkpoint::Checkpoint,
    dtype::Dtype,
    error::{Error, Result},
};

/// A model's tensors by checkpoint name, all of one type.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, Array>,
    folder: std::path::PathBuf,
}

impl Weights {
    /// Reads every tensor and casts it to `dtype`. At most one tensor exists twice, while it is
    /// cast. `progress` is told the bytes read so far and in all.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file changed or cannot be read, [`Error::Mlx`] if MLX fails.
    pub fn read(
        checkpoint: &Checkpoint,
        dtype: Dtype,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let total = checkpoint.bytes() as u64;
        let mut done = 0;
        let mut tensors = HashMap::with_capacity(checkpoint.tensors().len());
        progress(0, total);
        for file in checkpoint.files() {
            checkpoint.check_unchanged(file)?;
            let mut lazy =
                Array::load_safetensors(file).map_err(|error| unreadable(file, error))?;
            for (name, stored) in checkpoint.tensors().iter().filter(|(_, t)| t.file == *file) {
                let Some(array) = lazy.remove(name) else {
                    return Err(Error::Checkpoint {
                        path: file.clone(),
                        problem: format!("tensor `{name}` vanished while the model was loaded"),
                    });
                };
                let array = if stored.dtype == dtype {
                    array
                } else {
                    array.as_dtype(dtype.mlx())?
                };
                array.eval()?;
                tensors.insert(name.clone(), array);
                done += stored.bytes() as u64;
                progress(done, total);
            }
        }
        let folder = checkpoint.files().first().and_then(|file| file.parent());
        Ok(Self {
            tensors,
            folder: folder.unwrap_or(Path::new("")).to_path_buf(),
        })
    }

    /// Wraps tensors made in memory: a test's or a trainer's.
    pub fn from_tensors(tensors: HashMap<String, Array>) -> Self {
        Self {
            tensors,
            folder: "weights".into(),
        }
    }

    /// Takes a tensor out, checking its shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let Some(array) = self.tensors.remove(name) else {
            return Err(Error::MissingTensor {
                path: self.folder.clone(),
                name: name.into(),
                shape: shape.into(),
            });
        };
        let found: Vec<usize> = array
            .shape()
            .iter()
            .map(|&n| n.unsigned_abs() as usize)
            .collect();
        if found != shape {
            return Err(Error::TensorShape {
                path: self.folder.clone(),
                name: name.into(),
                expected: shape.into(),
                found,
            });
        }
        Ok(array)
    }
}

fn unreadable(file: &Path, error: IoError) -> Error {
    Error::Checkpoint {
        path: file.to_path_buf(),
        problem: error.to_string(),
    }
}
