//! Text generation: a model with its tokenizer, sampling, stop strings, speculation, chat.

mod batch;
mod chat;
mod chat_file;
mod chooser;
mod compute_dtype;
#[cfg(test)]
mod dtype_trace;
mod eos_token;
mod event;
mod generated_text;
mod generation;
mod language_model;
mod memory_estimate;
mod options;
mod phase;
mod prefix_cache;
mod progress;
mod prompt_cache;
mod prompt_cache_file;
mod prompt_logprobs;
pub(crate) mod sampling;
mod sequence;
mod speculation;
mod step;
mod stop;
mod turn;

pub use batch::advance;
pub use chat::{Chat, ContextOverflow};
pub use compute_dtype::{compute_dtype, training_dtype};
pub use eos_token::EosToken;
pub use event::{Event, FinishReason, PromptToken, Stats, Token, TokenLogprob};
pub use generation::Generation;
pub use language_model::{LanguageModel, LoadOptions};
pub use memory_estimate::MemoryEstimate;
pub use options::{GenerateOptions, LogprobsOf};
pub use prefix_cache::PrefixCache;
pub use prompt_cache::PromptCache;
pub use sampling::Sampling;
pub use speculation::{DEFAULT_DRAFT_TOKENS, DraftModel};

pub use crate::{model::KvCacheOptions, seed::seed_of_text};
