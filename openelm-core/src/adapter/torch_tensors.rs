//! The tensors of PEFT's older `adapter_model.bin`, a file of PyTorch.

use std::path::Path;

use mlx_rs::Array;

use crate::{
    error::{Error, Result},
    formats::torch::TorchFile,
    weights::Tensors,
};

/// Reads the tensors as float32.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if the file is malformed.
pub(super) fn load(path: &Path) -> Result<Tensors> {
    let file = TorchFile::open(path)?;
    let mut tensors = Tensors::new();
    for (name, tensor) in file.tensors() {
        let values = file.read_floats(tensor)?;
        let shape = tensor.shape.iter().map(|&size| i32::try_from(size));
        let shape = shape.collect::<Result<Vec<_>, _>>();
        let Ok(shape) = shape.map_err(drop) else {
            let problem = format!("tensor `{name}` is too large: {:?}", tensor.shape);
            return Err(Error::checkpoint(path, problem));
        };
        if values.is_empty() || values.len() != tensor.shape.iter().product::<usize>() {
            let problem = format!("tensor `{name}` of shape {:?} has no values", tensor.shape);
            return Err(Error::checkpoint(path, problem));
        }
        tensors.insert(name.clone(), Array::from_slice(&values, &shape));
    }
    Ok(tensors)
}
