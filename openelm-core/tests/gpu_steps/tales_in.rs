//! The bundled model, stored in other dtypes.

use mlx_rs::Array;
use openelm_core::Dtype;
use openelm_testing::{TempDir, write_tales};

/// The folder of `tales`, with its bfloat16 weights stored as `dtype`.
pub(crate) fn tales_in(dtype: Dtype) -> TempDir {
    let folder = TempDir::new();
    write_tales(&folder, &[]);
    let path = folder.join("model.safetensors");
    let dtype = match dtype {
        Dtype::Float32 => mlx_rs::Dtype::Float32,
        Dtype::Float16 => mlx_rs::Dtype::Float16,
        Dtype::Bfloat16 => mlx_rs::Dtype::Bfloat16,
    };
    let tensors = Array::load_safetensors(&path).unwrap();
    let cast = |(name, array): (String, Array)| (name, array.as_dtype(dtype).unwrap());
    let tensors: Vec<(String, Array)> = tensors.into_iter().map(cast).collect();
    mlx_rs::transforms::eval(tensors.iter().map(|(_, array)| array)).unwrap();
    let named = tensors.iter().map(|(name, array)| (name.as_str(), array));
    Array::save_safetensors(named, None, &path).unwrap();
    folder
}
