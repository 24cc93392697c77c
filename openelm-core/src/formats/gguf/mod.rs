//! GGUF, the file format of llama.cpp: one file with a model's settings, tokenizer and weights.
//!
//! The container is that of ggml's `docs/gguf.md`, versions 2 and 3 (the same layout) read and
//! version 3 written: magic, version, counts; metadata; a table of tensors; their data, each at a
//! multiple of the alignment. Everything is little-endian, and dimensions are stored innermost
//! first: a weight `[out, in]` has `in` first in the file and last in this crate.
//!
//! On top of it is the mapping of llama.cpp's `openelm` architecture, both ways: settings
//! ([`metadata`], [`config_from_gguf`]), weights ([`tensor_plan`], [`read_tensor`]) and the
//! tokenizer ([`Vocabulary`]).
//!
//! ```no_run
//! use std::{fs::File, io::BufWriter};
//! use openelm_core::{Config, Tokenizer, gguf};
//!
//! # fn weight(name: &str) -> Vec<f32> { Vec::new() }
//! # fn main() -> openelm_core::Result<()> {
//! let config = Config::load("OpenELM-270M")?;
//! let vocabulary = gguf::Vocabulary::of(&Tokenizer::from_file("tokenizer.json")?)?;
//! let kind = gguf::FileType::Q8_0;
//! let plan = gguf::tensor_plan(&config, kind)?;
//! let metadata = gguf::metadata(&config, "OpenELM-270M", kind, Some(&vocabulary))?;
//! let file = BufWriter::new(File::create("openelm.gguf").expect("a new file"));
//! let tensors = plan.iter().map(|planned| planned.tensor.clone()).collect();
//! let mut writer = gguf::GgufWriter::new(file, "openelm.gguf", &metadata, tensors)?;
//! for planned in &plan {
//!     let whole: Vec<f32> = weight(&planned.source);
//!     writer.write(&planned.tensor.name, planned.part_of(&whole)?)?;
//! }
//! writer.finish()?;
//! # Ok(())
//! # }
//! ```

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
