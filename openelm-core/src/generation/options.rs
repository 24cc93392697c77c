//! Options of a generation.

use super::sampling::Sampling;
use crate::{
    error::{Error, Result},
    mlx::Device,
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
    /// Prompt tokens per chunk. `None`, the default, is 128 on a CPU, where smaller chunks save
    /// work above the diagonal, and on iOS, where the system gives an app that enters the
    /// background few seconds to end a chunk; 512 on other GPUs.
    pub prefill_chunk: Option<usize>,
    /// Continue after the end-of-sequence token. Default false.
    pub ignore_eos: bool,
    /// Largest number of tokens that are copied, as drafts, from an earlier occurrence of the last
    /// tokens in the prompt or the text, and verified by one pass; as Hugging Face's
    /// `prompt_lookup_num_tokens`. It changes the time, not the text. Default 0: off.
    pub prompt_lookup: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: 0,
            prefill_chunk: None,
            ignore_eos: false,
            prompt_lookup: 0,
        }
    }
}

impl GenerateOptions {
    /// Prompt tokens per chunk.
    pub(super) fn chunk(&self) -> Result<usize> {
        Ok(match self.prefill_chunk {
            Some(chunk) => chunk,
            None => default_prefill_chunk(Device::current()?),
        })
    }

    /// Checks the options and a prompt for a model with `context` positions and `vocab` ids, of
    /// which those below `pieces` may be drawn.
    pub(super) fn check(
        &self,
        prompt: &[u32],
        context: usize,
        vocab: usize,
        pieces: usize,
    ) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::empty_prompt());
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
            return Err(Error::option("prompt", problem));
        }
        if prompt.len() >= context {
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
