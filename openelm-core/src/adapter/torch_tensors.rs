//! The tensors of an adapter in a file of PyTorch: PEFT's older `adapter_model.bin`, CoreNet's.

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
    let names = file.tensors().keys();
    names
        .map(|name| Ok((name.clone(), read(&file, name)?)))
        .collect()
}

/// Reads the tensor `name` as float32.
///
/// # Errors
/// As [`load`], and if there is no such tensor.
pub(super) fn read(file: &TorchFile, name: &str) -> Result<Array> {
    let wrong = |problem: String| Err(Error::checkpoint(file.path(), problem));
    let Some(tensor) = file.tensors().get(name) else {
        return wrong(format!("there is no tensor `{name}`"));
    };
    let values = file.read_floats(tensor)?;
    let shape = tensor.shape.iter().map(|&size| i32::try_from(size));
    let Ok(shape) = shape.collect::<Result<Vec<_>, _>>() else {
        return wrong(format!("tensor `{name}` is too large: {:?}", tensor.shape));
    };
    if values.is_empty() || values.len() != tensor.shape.iter().product::<usize>() {
        let shape = &tensor.shape;
        return wrong(format!("tensor `{name}` of shape {shape:?} has no values"));
    }
    Ok(Array::from_slice(&values, &shape))
}
