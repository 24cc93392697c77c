//! Conversion of OpenELM checkpoints: from all their formats to a model folder for MLX or Hugging
//! Face, to GGUF, or to CoreNet's formats.
//!
//! | in | |
//! |---|---|
//! | Hugging Face, mlx-lm | a folder of `config.json` and safetensors, quantised or not |
//! | CoreNet | a `.pt` file, of weights or of a training run |
//! | CoreNet's MLX example | a folder with `weights.safetensors` |
//! | llama.cpp | a `.gguf` file of architecture `openelm` |
//!
//! Tensors are read, cast, quantised and written one after the other, so that memory holds only a
//! few tensors of a model of any size. The result is written beside the target and renamed after it
//! is complete and, unless [`ConvertOptions::verify`] is off, has been compared with the source.
//!
//! ```no_run
//! use openelm_core::{CancelHandle, convert::{self, ConvertOptions, Quantize}};
//! use openelm_core::quantization::{Quantization, QuantizationMode};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let options = ConvertOptions {
//!     quantize: Some(Quantize::uniform(Quantization::new(QuantizationMode::Affine, None, None)?)),
//!     ..ConvertOptions::default()
//! };
//! let cancel = CancelHandle::default();
//! let report = convert::convert("OpenELM-270M", "OpenELM-270M-4bit", &options, &cancel, |_| {})?;
//! println!("{:.2} bits per weight", report.bits_per_weight);
//! # Ok(())
//! # }
//! ```

pub(crate) mod architecture;
mod bit_widths;
mod compare_logits;
mod convert;
mod corenet_config;
mod event;
pub(crate) mod gguf;
mod options;
mod plan;
mod report;
pub(crate) mod source;
mod staging;
mod stored_numbers;
mod target;
mod tensor_difference;
mod tensor_pair;
mod tokenizer_files;
mod verify;
mod weight_files;
mod write;

pub use crate::formats::gguf::FileType;
pub use architecture::parse_architecture;
pub use bit_widths::{LayerRule, Quantize, Recipe};
pub use convert::{Conversion, convert, plan};
pub use event::ConvertEvent;
pub use options::{ConvertOptions, Format, TokenizerChoice};
pub use plan::{Plan, PlannedTensor};
pub use report::{ConvertReport, TensorChecks, TensorError, Verification};
pub(crate) use target::check_target_folder;
pub(crate) use tokenizer_files::source_tokenizer;
