//! `openelm-core` for Swift, through UniFFI: conversions and channels, no logic.
//!
//! One thread owns MLX and all models (`worker.rs`); objects here talk to it by channel. What runs
//! long is a stream that is pulled: `next()` gives an event, `None` after the last one, and
//! `cancel()` ends it. Every function that is exported returns a `Result`, so that a panic comes
//! out as an error.

mod adapters;
mod convert;
mod ending;
mod engine;
mod error;
mod fault;
mod finetune;
mod generation;
mod load;
mod memory;
mod outbox;
mod session;
mod worker;

pub use adapters::AdapterStrength;
pub use convert::{
    ConvertEvent, ConvertFormat, ConvertOptions, ConvertReport, ConvertRun, QuantizeOptions,
    convert,
};
pub use engine::{Engine, ModelInfo};
pub use error::EngineError;
pub use finetune::{FinetuneEnd, FinetuneEvent, FinetuneKind, FinetuneOptions, FinetuneRun};
pub use generation::{
    FinishReason, GenerationEvent, GenerationOptions, GenerationStats, GenerationStream,
    TokenChance,
};
pub use load::{LoadOptions, LoadProgress, LoadRun, load_model};
pub use memory::{
    MemoryEstimate, MemoryStatistics, clear_memory_cache, estimate_memory, memory_statistics,
    mlx_version, pause, reset_peak_memory, resume, set_memory_cache_limit, set_memory_limit,
    set_metallib,
};
pub use session::{ChatMessage, ChatRole, ChatTemplate, Session};

uniffi::setup_scaffolding!("openelm");
