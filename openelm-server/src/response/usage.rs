//! Counts of tokens.

use openelm_core::generation::Stats;
use serde::Serialize;

/// `usage` of a response.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
}

impl Usage {
    /// Adds a text; the prompt counts with the first of its texts.
    pub(super) fn add(&mut self, stats: &Stats, is_first: bool) {
        if is_first {
            self.prompt_tokens += stats.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += stats.cached_tokens;
        }
        self.completion_tokens += stats.generated_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}
