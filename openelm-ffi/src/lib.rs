//! `openelm-core` for Swift, through UniFFI: conversions and channels, no logic.
//!
//! The core's engine owns MLX and all models; the objects here hold its handles.
//! Long work is a stream that the caller pulls: `next()` returns an event, `None` after the last
//! one, and `cancel()` ends it. Every exported function returns a `Result`, so that a panic becomes
//! an error.

mod adapters;
mod cancellation;
mod chat;
mod convert;
mod count;
mod engine;
mod error;
mod exit_guard;
mod file_hash;
mod finetune;
mod finetune_options;
mod generation;
mod generation_options;
mod language_model;
mod load;
mod memory;
mod score;

pub use adapters::AdapterStrength;
pub use cancellation::{Cancellation, new_cancellation};
pub use chat::{
    Chat, ChatMessage, ChatRole, ChatTemplate, load_chat, model_chat_template, new_chat,
    token_count,
};
pub use convert::{
    ConvertEvent, ConvertFormat, ConvertOptions, ConvertReport, ConvertRun, QuantizeOptions,
    convert, default_convert_options,
};
pub use error::{Error, RunDifference};
pub use file_hash::sha256;
pub use finetune::{FinetuneEnd, FinetuneEvent, FinetuneRun, SavedRun, finetune, saved_run};
pub use finetune_options::{
    AdapterKind, FinetuneOptions, LongRows, OptimizerKind, PreferenceLoss, ScheduleShape,
    default_finetune_options,
};
pub use generation::{
    FinishReason, GenerationEvent, GenerationStats, GenerationStream, TokenLogprob,
};
pub use generation_options::{
    AtLimit, Constraint, ContextOverflow, Draft, GenerationOptions, KvCacheOptions, RequestOptions,
    default_generation_options,
};
pub use language_model::{LanguageModel, ModelInfo};
pub use load::{LoadOptions, LoadProgress, LoadRun, default_load_options, load_model};
pub use memory::{
    MemoryEstimate, MemoryStatistics, clear_memory_cache, estimate_memory, memory_statistics,
    mlx_version, pause, pause_async, reset_peak_memory, resume, set_memory_cache_limit,
    set_memory_limit, set_metallib,
};

pub use score::{LogLikelihood, Perplexity, ScoreRequest};

uniffi::setup_scaffolding!("openelm");
