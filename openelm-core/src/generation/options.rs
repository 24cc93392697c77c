//! Options of a generation.

use super::{
    eos_token::EosToken,
    prompt_cache::{PromptCache, UNKNOWN},
    sampling::Sampling,
};
use crate::{
    config::Config,
    constraint::{AtLimit, ConstraintKind},
    error::{Error, Result},
    mlx::Device,
    model::KvCacheOptions,
};

/// Options of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Largest number of tokens to generate. Default 256.
    pub max_tokens: usize,
    /// Sampling of the tokens. Default greedy.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Number of most likely tokens to report at each step, with log-probabilities. Default 0.
    pub logprobs: usize,
    /// Distribution of the log-probabilities. Default the model's.
    pub logprobs_of: LogprobsOf,
    /// Report the log-probability of each token of the prompt but the first, and `logprobs` most
    /// likely tokens at its place, in the events of the prompt; the model's values. The whole prompt
    /// is read: a prompt cache is not used, and parts have at most 128 tokens. Default false.
    pub prompt_logprobs: bool,
    /// Prompt tokens per chunk. `None`, the default, is 128 on a CPU, where smaller chunks save
    /// work above the diagonal, and on iOS, where the system gives an app that enters the
    /// background few seconds to end a chunk; 512 on other GPUs.
    pub prefill_chunk: Option<usize>,
    /// Continue after the end-of-sequence token, and `extra_eos_tokens`. Default false.
    pub ignore_eos: bool,
    /// Kind of the key-value cache. Default plain. With a rotating cache, the model's context does
    /// not limit the prompt and the text: positions continue after it, as in mlx-lm.
    pub kv_cache: KvCacheOptions,
    /// Tokens that end the text as the end-of-sequence token does. Default none.
    pub extra_eos_tokens: Vec<EosToken>,
    /// Structured output: a constraint on the whole text. The text ends with the end-of-sequence
    /// token where it is complete; a text that reaches `max_tokens` or a stop string before may be
    /// incomplete. Not with `ignore_eos`. Default none.
    pub constraint: Option<ConstraintKind>,
    /// The end of a text with a constraint that reaches `max_tokens` or the end of the context.
    /// Default: it stops there.
    pub at_limit: AtLimit,
    /// Largest number of tokens that are copied, as drafts, from an earlier occurrence of the last
    /// tokens in the prompt or the text, and verified by one pass; as Hugging Face's
    /// `prompt_lookup_num_tokens`. It changes the time, not the text. Default 0: off.
    pub prompt_lookup: usize,
}

/// Distribution of the log-probabilities that a generation reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogprobsOf {
    /// The model's, before any option of the sampling.
    #[default]
    Model,
    /// The distribution that the token is drawn from, after all options of the sampling; tokens
    /// that are excluded are not reported. Greedy decoding has no temperature and no filters.
    Sampler,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: 0,
            logprobs_of: LogprobsOf::default(),
            prompt_logprobs: false,
            prefill_chunk: None,
            ignore_eos: false,
            kv_cache: KvCacheOptions::default(),
            extra_eos_tokens: Vec::new(),
            constraint: None,
            at_limit: AtLimit::Stop,
            prompt_lookup: 0,
        }
    }
}

impl GenerateOptions {
    /// Prompt tokens per chunk.
    pub(super) fn chunk(&self) -> Result<usize> {
        let chunk = match self.prefill_chunk {
            Some(chunk) => chunk,
            None => default_prefill_chunk(Device::current()?),
        };
        // Each token of a part has f32 logits.
        let most = if self.prompt_logprobs { 128 } else { chunk };
        Ok(chunk.min(most))
    }

    /// Largest number of positions of a sequence; `None` with a rotating cache.
    pub(super) fn context(&self, config: &Config) -> Option<usize> {
        let context = config.max_context_length();
        self.kv_cache.max_kv_size.is_none().then_some(context)
    }

    /// Checks the options and a prompt, which may begin with the tokens of `cache`, for a model with
    /// `config`, of whose ids those below `pieces` may be drawn.
    pub(super) fn check(
        &self,
        prompt: &[u32],
        cache: &PromptCache,
        config: &Config,
        pieces: usize,
    ) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::empty_prompt());
        }
        let vocab = config.vocab_size();
        let cached = cache.tokens().iter().map(Some);
        let mut ids = prompt.iter().zip(cached.chain(std::iter::repeat(None)));
        if let Some((id, _)) = ids.find(|&(id, own)| *id as usize >= vocab && own != Some(id)) {
            let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
            return Err(Error::option("prompt", problem));
        }
        if self.prompt_logprobs && prompt.contains(&UNKNOWN) {
            let problem = "not with a prompt cache whose tokens are unknown";
            return Err(Error::option("prompt_logprobs", problem));
        }
        self.kv_cache.check_for(config.head_dim())?;
        if let Some(context) = self.context(config)
            && prompt.len() >= context
        {
            return Err(Error::PromptTooLong {
                tokens: prompt.len(),
                context,
            });
        }
        if self.logprobs > pieces {
            let problem = format!("expected at most the vocabulary's {pieces}");
            return Err(Error::option("logprobs", problem));
        }
        if self.prefill_chunk == Some(0) {
            return Err(Error::at_least("prefill_chunk", 1, 0));
        }
        Ok(())
    }
}

/// Prompt tokens per chunk, if the options give none.
pub(super) fn default_prefill_chunk(device: Device) -> usize {
    match device {
        Device::Gpu if !cfg!(target_os = "ios") => 512,
        _ => 128,
    }
}
