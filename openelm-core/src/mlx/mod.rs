//! Parts of MLX that `mlx-rs` does not offer: quantised matrices, mapped arrays, process groups.
//!
//! `ffi.rs`, `primitives.rs` and `mapped.rs` hold all of the crate's `unsafe`.

pub(crate) mod available;
pub(crate) mod cache_policy;
mod compile;
#[cfg(any(target_os = "linux", test))]
mod control_group;
mod dequantize_affine;
mod device;
mod dtype;
pub(crate) mod evaluation;
mod ffi;
#[cfg(test)]
pub(crate) mod graph;
#[cfg(test)]
mod launches;
pub(crate) mod mapped;
mod matrix;
pub(crate) mod memory;
pub(crate) mod memory_trace;
pub(crate) mod primitives;
mod proc_file;
pub(crate) mod quantization;
mod quantize_affine;
mod quantized_matrix;
pub(crate) mod recovery;
pub mod runtime;
mod wired_memory;

pub(crate) use compile::{compiler_failed, compiles, or_uncompiled, swiglu};
pub(crate) use dequantize_affine::{scale, unpack};
pub use device::{Device, SelectedDevice};
pub use dtype::Dtype;
pub(crate) use ffi::ProcessGroup;
#[cfg(test)]
pub(crate) use launches::launches;
pub(crate) use matrix::Matrix;
pub(crate) use quantization::{Quantization, QuantizationMap, QuantizationMode};
pub(crate) use quantize_affine::is_quantized;
pub(crate) use quantized_matrix::QuantizedMatrix;
