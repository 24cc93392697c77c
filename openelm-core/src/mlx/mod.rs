//! Parts of MLX that `mlx-rs` does not offer: quantised matrices, mapped arrays, process groups.
//!
//! `ffi.rs` and `mapped.rs` hold all of the crate's `unsafe`.

mod compile;
mod dequantize_affine;
mod device;
mod dtype;
mod ffi;
#[cfg(test)]
mod launches;
pub(crate) mod mapped;
mod matrix;
pub(crate) mod memory;
pub(crate) mod quantization;
mod quantized_matrix;
pub mod runtime;

pub(crate) use compile::{compiles, swiglu};
pub use device::{Device, SelectedDevice};
pub use dtype::Dtype;
pub(crate) use ffi::ProcessGroup;
#[cfg(test)]
pub(crate) use launches::launches;
pub(crate) use matrix::Matrix;
pub(crate) use quantization::{Quantization, QuantizationMap, QuantizationMode};
pub(crate) use quantized_matrix::QuantizedMatrix;
