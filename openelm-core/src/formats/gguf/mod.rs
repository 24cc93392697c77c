//! GGUF, the file format of llama.cpp: one file with a model's settings, tokenizer and weights.
//!
//! The container follows ggml's `docs/gguf.md`; versions 2 and 3 (the same layout) are read and
//! version 3 is written: magic, version, counts; metadata; a table of tensors; their data, each at
//! a multiple of the alignment. Everything is little-endian, and dimensions are stored innermost
//! first: a weight `[out, in]` has `in` first in the file and last in this crate.
//!
//! The mapping of OpenELM to llama.cpp's names is in `convert/gguf`.

mod dequantize;
mod file_type;
mod header;
mod quantize;
mod reader;
mod tensor_info;
mod tensor_type;
mod value;
mod writer;

pub use file_type::FileType;
pub(crate) use quantize::rounded;
pub use reader::{GgufReader, TensorData};
pub use tensor_info::TensorInfo;
pub use tensor_type::TensorType;
pub use value::{Value, ValueType};
pub use writer::{GgufWriter, TensorSpec};
