//! Apple's OpenELM language models on MLX: load a checkpoint, generate text, convert between
//! formats, inspect an architecture.
//!
//! OpenELM (arXiv 2404.14619) is a decoder whose layers widen with depth. This crate reads the
//! checkpoints as Apple published them in Hugging Face's layout and runs them through `mlx-rs`:
//! on Metal on Apple systems, on MLX's CPU backend elsewhere.
//!
//! ```no_run
//! use openelm_core::{LanguageModel, LoadOptions, generation::{Event, GenerateOptions}};
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
//! MLX binds arrays to the thread that made them: load and run a model on one thread. An
//! [`Engine`](engine::Engine) is such a thread with handles for all others, and generates several
//! texts at the same time.
//!
//! Shapes in the documentation: `B` batch, `L` length, `D` model width, `H` heads, `V` vocabulary.

pub mod adapter;
mod cancel;
mod caught;
pub mod config;
pub mod constraint;
pub mod convert;
mod data;
mod documents;
pub mod engine;
mod error;
pub mod evaluate;
mod files;
mod formats;
mod gate;
pub mod generation;
mod hub_cache;
mod json;
mod lookup;
mod mlx;
mod model;
mod parallel;
pub mod quantize;
mod seed;
mod text_file;
pub mod tokenizer;
mod training;
pub mod weights;
mod yaml;

pub use cancel::CancelHandle;
pub use config::Config;
pub use data::{corpus, dataset};
pub use error::{Error, ErrorKind, Remedy, Result, one_line};
pub use generation::{LanguageModel, LoadOptions};
pub use mlx::{Device, Dtype, SelectedDevice, runtime};
pub use model::Model;
pub use tokenizer::{TOKENIZER_FILES, Tokenizer};
pub use training::{finetune, pretrain};

/// Conversations with a chat template.
pub mod chat {
    pub use crate::{
        generation::{Chat, ContextOverflow},
        tokenizer::{ChatTemplate, Message, Role},
    };
}

/// MLX's memory use, and estimates of a model's memory.
pub mod memory {
    pub use crate::{generation::MemoryEstimate, mlx::memory::*};
}

/// Files: atomic writes, inputs inside an output, and hashes.
pub mod output {
    pub use crate::files::{check_inputs, check_outside_data, sha256, write_file};
}

/// Text files of any editor: byte order marks, UTF-16, limits of size; YAML.
pub mod text {
    pub use crate::{
        text_file::{MAX_SETTINGS, MAX_TEXT, for_each_line, read_text, read_text_file},
        yaml::parse_yaml,
    };
}

/// Quantisation of matrices.
pub mod quantization {
    pub use crate::mlx::quantization::{Quantization, QuantizationMap, QuantizationMode};
}

/// Training of adapters and weights: trainer, losses, optimizers, schedules.
pub mod train {
    pub use crate::{
        error::RunDifference,
        training::{
            BestValidation, Group, Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule,
            ScheduleKind, ScheduleOptions, ScheduleShape, Step, Trainer, TrainerOptions,
        },
    };
}

/// Parts that tests, benchmarks and fuzz targets use. They may change in any release.
#[doc(hidden)]
pub mod internal {
    #[cfg(feature = "inject-faults")]
    pub use crate::mlx::recovery::faults::{delay as inject_delay, inject as inject_fault};
    pub use crate::{
        convert::gguf::{
            PlannedTensor, Token, TokenKind, Vocabulary, check_tensors, config_from_gguf, metadata,
            name_from_gguf, read_tensor, tensor_plan,
        },
        data::batch::{Batch, BatchPlan, MlxLmOrder, Padding, mlx_lm_batches},
        formats::{
            gguf::{
                GgufReader, GgufWriter, TensorData, TensorInfo, TensorSpec, TensorType, Value,
                ValueType,
            },
            torch::{TorchFile, TorchTensor},
        },
        gate::{Gate, GateGuard},
        generation::sampling::{Choice, Sampler, SamplerVocabulary},
        mlx::{
            available::{AssumedMemory, assume_available},
            evaluation::Evaluations,
            memory_trace::{Assumptions, MemoryAction, MemoryTrace},
        },
        model::KvCache,
        weights::{ReadOptions, Weights, random_weights},
    };
}

/// Compiles the Rust examples of the documentation.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/fine-tuning.md")]
    struct FineTuning;
}
