//! Apple's OpenELM language models on MLX: load a checkpoint, generate text, convert between
//! formats, inspect an architecture.
//!
//! OpenELM (arXiv 2404.14619) is a decoder whose layers widen with depth. This crate reads the
//! checkpoints as Apple published them in Hugging Face's layout and runs them through `mlx-rs`:
//! on Metal on Apple systems, on MLX's CPU backend elsewhere.
//!
//! ```no_run
//! use openelm_core::{Event, GenerateOptions, LanguageModel, LoadOptions};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let model = LanguageModel::load("OpenELM-270M", &LoadOptions::default())?;
//! for event in model.generate("Once upon a time", GenerateOptions::default())? {
//!     if let Event::Token(token) = event? {
//!         print!("{}", token.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! MLX ties arrays to the thread that made them: load and run a model on one thread, and let
//! others talk to it by channel.
//!
//! Shapes in the documentation: `B` batch, `L` length, `D` model width, `H` heads, `V` vocabulary.

pub mod adapter;
mod attention;
pub mod batches;
mod cache;
mod cancel;
mod chat;
mod checkpoint;
pub mod config;
mod config_extra;
mod config_json;
mod config_keys;
mod config_sizes;
pub mod convert;
pub mod corpus;
pub mod dataset;
mod detokenizer;
pub mod distributed;
mod dtype;
mod error;
mod estimate;
mod feed_forward;
pub mod finetune;
mod generate;
pub mod gguf;
mod init;
mod language_model;
mod layer_wise;
mod linear;
mod low_rank;
mod mapped;
pub mod memory;
mod metrics;
mod model;
mod packed;
mod pause;
mod pickle;
mod preset;
pub mod pretrain;
mod prompt_cache;
pub mod quantization;
mod readers;
mod rope;
pub mod runtime;
mod sampling;
mod scaling;
mod sentencepiece;
mod stop;
mod tensor_file;
mod tokenizer;
mod torch_file;
pub mod train;
mod unpack;
mod weights;

pub use adapter::{Adapter, AdapterKind, LoraOptions};
pub use cache::KvCache;
pub use cancel::CancelHandle;
pub use chat::{Chat, ChatTemplate};
pub use checkpoint::{Checkpoint, StoredDtype, StoredTensor, model_folder};
pub use config::Config;
pub use detokenizer::Detokenizer;
pub use dtype::{Device, Dtype};
pub use error::{Error, Result};
pub use estimate::MemoryEstimate;
pub use generate::{Event, FinishReason, GenerateOptions, Generation, Stats, Token};
pub use init::random_weights;
pub use language_model::{LanguageModel, LoadOptions};
pub use model::Model;
pub use pause::{Gate, Turn};
pub use preset::Preset;
pub use prompt_cache::PromptCache;
pub use sampling::Sampling;
pub use tokenizer::{Tokenizer, TokenizerReport, TokenizerTraining};
pub use torch_file::{TorchFile, TorchTensor};
pub use weights::{ReadOptions, Weights};
