//! Parts of MLX that `mlx-rs` does not offer: quantised matrices, mapped arrays, process groups.
//!
//! With `mapped.rs` and `quantized_matrix.rs` this folder holds all of the crate's `unsafe`.

mod dequantize_affine;
mod dtype;
pub(crate) mod mapped;
pub(crate) mod memory;
pub(crate) mod quantization;
mod quantized_matrix;
pub mod runtime;

pub use dtype::{Device, Dtype};
pub(crate) use quantization::{Quantization, QuantizationMap, QuantizationMode};
pub(crate) use quantized_matrix::{Processes, QuantizedMatrix};
