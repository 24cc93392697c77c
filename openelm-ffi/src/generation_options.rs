//! Options of a generation, and of a request.

use std::{collections::HashMap, sync::Arc};

use openelm_core::{
    self as core, constraint,
    constraint::ConstraintKind,
    engine,
    generation::{GenerateOptions, Sampling},
};

use crate::{
    adapters::AdapterStrength, count::count, error::Result, language_model::LanguageModel,
};

/// Options of a generation. Mirrors `openelm_core::generation::GenerateOptions` and its `Sampling`.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core's fields of these names")]
pub struct GenerationOptions {
    pub max_tokens: u64,
    pub temperature: f32,
    pub top_k: u64,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    pub top_n_sigma: f32,
    pub xtc_probability: f32,
    pub xtc_threshold: f32,
    pub repetition_penalty: f32,
    pub repetition_context_size: Option<u64>,
    pub presence_penalty: f32,
    pub presence_context_size: u64,
    pub frequency_penalty: f32,
    pub frequency_context_size: u64,
    pub dry_multiplier: f32,
    pub dry_base: f32,
    pub dry_allowed_length: u64,
    pub dry_penalty_last_n: Option<u64>,
    pub dry_sequence_breakers: Vec<String>,
    pub logit_bias: HashMap<u32, f32>,
    pub min_tokens: u64,
    pub banned_strings: Vec<String>,
    pub forced_prefix: String,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    pub logprobs: u64,
    pub prefill_chunk: Option<u64>,
    pub ignore_eos: bool,
    pub kv_cache: KvCacheOptions,
    pub constraint: Option<Constraint>,
    pub at_limit: AtLimit,
    pub prompt_lookup: u64,
}

/// Mirrors `openelm_core::generation::KvCacheOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core's fields of these names")]
pub struct KvCacheOptions {
    pub max_kv_size: Option<u64>,
    pub keep: u64,
    pub kv_bits: Option<u64>,
    pub kv_group_size: u64,
    pub quantized_kv_start: u64,
}

/// Mirrors `openelm_core::constraint::ConstraintKind`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::constraint::ConstraintKind")]
pub enum Constraint {
    JsonSchema { schema: String },
    Regex { pattern: String },
    Grammar { grammar: String },
    Choice { choices: Vec<String> },
}

/// Mirrors `openelm_core::constraint::AtLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::constraint::AtLimit")]
pub enum AtLimit {
    Stop,
    Error,
    Close,
}

/// Mirrors `openelm_core::chat::ContextOverflow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::chat::ContextOverflow")]
pub enum ContextOverflow {
    Error,
    DropOldestTurns,
}

/// A draft model, and the largest number of drafts per pass.
#[derive(Debug, Clone, uniffi::Record)]
#[allow(missing_docs, reason = "documented by the record")]
pub struct Draft {
    pub model: Arc<LanguageModel>,
    pub num_draft_tokens: u64,
}

/// Mirrors `openelm_core::engine::RequestOptions`.
#[derive(Debug, Clone, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core's fields of these names")]
pub struct RequestOptions {
    pub adapters: Option<Vec<AdapterStrength>>,
    pub draft: Option<Draft>,
    pub context_overflow: ContextOverflow,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            adapters: None,
            draft: None,
            context_overflow: ContextOverflow::Error,
        }
    }
}

/// The core's defaults.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn default_generation_options() -> Result<GenerationOptions> {
    let options = GenerateOptions::default();
    let (sampling, kv_cache) = (options.sampling, options.kv_cache);
    Ok(GenerationOptions {
        max_tokens: options.max_tokens as u64,
        temperature: sampling.temperature,
        top_k: sampling.top_k as u64,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        typical_p: sampling.typical_p,
        top_n_sigma: sampling.top_n_sigma,
        xtc_probability: sampling.xtc_probability,
        xtc_threshold: sampling.xtc_threshold,
        repetition_penalty: sampling.repetition_penalty,
        repetition_context_size: sampling.repetition_context_size.map(|size| size as u64),
        presence_penalty: sampling.presence_penalty,
        presence_context_size: sampling.presence_context_size as u64,
        frequency_penalty: sampling.frequency_penalty,
        frequency_context_size: sampling.frequency_context_size as u64,
        dry_multiplier: sampling.dry_multiplier,
        dry_base: sampling.dry_base,
        dry_allowed_length: sampling.dry_allowed_length as u64,
        dry_penalty_last_n: sampling.dry_penalty_last_n.map(|size| size as u64),
        dry_sequence_breakers: sampling.dry_sequence_breakers,
        logit_bias: sampling.logit_bias.into_iter().collect(),
        min_tokens: sampling.min_tokens as u64,
        banned_strings: sampling.banned_strings,
        forced_prefix: sampling.forced_prefix,
        seed: sampling.seed,
        stop: options.stop,
        logprobs: options.logprobs as u64,
        prefill_chunk: options.prefill_chunk.map(|tokens| tokens as u64),
        ignore_eos: options.ignore_eos,
        kv_cache: KvCacheOptions {
            max_kv_size: kv_cache.max_kv_size.map(|size| size as u64),
            keep: kv_cache.keep as u64,
            kv_bits: kv_cache.kv_bits.map(|bits| bits as u64),
            kv_group_size: kv_cache.kv_group_size as u64,
            quantized_kv_start: kv_cache.quantized_kv_start as u64,
        },
        // The core's defaults are none, and the end at the limit.
        constraint: None,
        at_limit: AtLimit::Stop,
        prompt_lookup: options.prompt_lookup as u64,
    })
}

impl From<GenerationOptions> for GenerateOptions {
    fn from(options: GenerationOptions) -> Self {
        Self {
            max_tokens: count(options.max_tokens),
            sampling: Sampling {
                temperature: options.temperature,
                top_k: count(options.top_k),
                top_p: options.top_p,
                min_p: options.min_p,
                typical_p: options.typical_p,
                top_n_sigma: options.top_n_sigma,
                xtc_probability: options.xtc_probability,
                xtc_threshold: options.xtc_threshold,
                repetition_penalty: options.repetition_penalty,
                repetition_context_size: options.repetition_context_size.map(count),
                presence_penalty: options.presence_penalty,
                presence_context_size: count(options.presence_context_size),
                frequency_penalty: options.frequency_penalty,
                frequency_context_size: count(options.frequency_context_size),
                dry_multiplier: options.dry_multiplier,
                dry_base: options.dry_base,
                dry_allowed_length: count(options.dry_allowed_length),
                dry_penalty_last_n: options.dry_penalty_last_n.map(count),
                dry_sequence_breakers: options.dry_sequence_breakers,
                logit_bias: options.logit_bias.into_iter().collect(),
                min_tokens: count(options.min_tokens),
                banned_strings: options.banned_strings,
                forced_prefix: options.forced_prefix,
                seed: options.seed,
            },
            stop: options.stop,
            logprobs: count(options.logprobs),
            prefill_chunk: options.prefill_chunk.map(count),
            ignore_eos: options.ignore_eos,
            kv_cache: core::generation::KvCacheOptions {
                max_kv_size: options.kv_cache.max_kv_size.map(count),
                keep: count(options.kv_cache.keep),
                kv_bits: options.kv_cache.kv_bits.map(count),
                kv_group_size: count(options.kv_cache.kv_group_size),
                quantized_kv_start: count(options.kv_cache.quantized_kv_start),
            },
            constraint: options.constraint.map(|constraint| match constraint {
                Constraint::JsonSchema { schema } => ConstraintKind::JsonSchema(schema),
                Constraint::Regex { pattern } => ConstraintKind::Regex(pattern),
                Constraint::Grammar { grammar } => ConstraintKind::Grammar(grammar),
                Constraint::Choice { choices } => ConstraintKind::Choice(choices),
            }),
            at_limit: match options.at_limit {
                AtLimit::Stop => constraint::AtLimit::Stop,
                AtLimit::Error => constraint::AtLimit::Error,
                AtLimit::Close => constraint::AtLimit::Close,
            },
            prompt_lookup: count(options.prompt_lookup),
            ..Self::default()
        }
    }
}

impl From<RequestOptions> for engine::RequestOptions {
    fn from(options: RequestOptions) -> Self {
        let pair = |adapter: AdapterStrength| (adapter.name, adapter.strength);
        Self {
            adapters: options
                .adapters
                .map(|adapters| adapters.into_iter().map(pair).collect()),
            draft: options.draft.map(|draft| {
                let most = count(draft.num_draft_tokens);
                (draft.model.handle().clone(), most)
            }),
            context_overflow: match options.context_overflow {
                ContextOverflow::Error => core::chat::ContextOverflow::Error,
                ContextOverflow::DropOldestTurns => core::chat::ContextOverflow::DropOldestTurns,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_cores() {
        let options = default_generation_options().unwrap();
        assert_eq!(GenerateOptions::from(options), GenerateOptions::default());
    }
}
