//! The progress of a generation: its counts and times, its limit, and its work on the device.

use std::time::Instant;

use super::{
    event::{FinishReason, Stats},
    options::GenerateOptions,
};
use crate::{
    error::Result,
    mlx::cache_policy::{DeviceWork, Phase},
};

/// The progress of one generation.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) stats: Stats,
    started: Instant,
    /// Limit of generated tokens: `max_tokens`, or the free positions of the context.
    limit: usize,
    max_tokens: usize,
    /// Tokens that end the text; none if they are ignored.
    end_tokens: Vec<u32>,
    /// From the first turn to the last.
    work: Option<DeviceWork>,
}

impl Progress {
    /// The progress before the first turn, with the prompt's counts in `stats`. `positions` are
    /// free after the prompt.
    pub(super) fn new(
        stats: Stats,
        options: &GenerateOptions,
        positions: usize,
        end_tokens: Vec<u32>,
    ) -> Self {
        Self {
            stats,
            started: Instant::now(),
            limit: options.max_tokens.min(positions),
            max_tokens: options.max_tokens,
            end_tokens: if options.ignore_eos {
                Vec::new()
            } else {
                end_tokens
            },
            work: None,
        }
    }

    /// The time to the first token begins now.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// Begins the work on the device, and its next phase.
    pub(super) fn work_in(&mut self, phase: Phase) -> Result<()> {
        let work = match self.work.take() {
            Some(work) => work,
            None => DeviceWork::begin()?,
        };
        self.work.insert(work).enter(phase)
    }

    /// Ends the work on the device.
    pub(super) fn end_work(&mut self) {
        self.work = None;
    }

    /// Largest number of generated tokens.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Number of tokens that the limit still allows.
    pub(super) fn left(&self) -> usize {
        self.limit.saturating_sub(self.stats.generated_tokens)
    }

    /// Counts a generated token.
    pub(super) fn count_token(&mut self) -> Result<()> {
        self.stats.generated_tokens += 1;
        let elapsed = self.started.elapsed();
        if self.stats.generated_tokens == 1 {
            self.stats.prefill = elapsed;
        }
        self.stats.decode = elapsed.saturating_sub(self.stats.prefill);
        match &self.work {
            Some(work) => work.after_token(self.stats.generated_tokens),
            None => Ok(()),
        }
    }

    /// The reason if the text ends with the token `id`, which was counted, unless a stop string
    /// ends it.
    pub(super) fn reason_to_end(&self, id: u32) -> Option<FinishReason> {
        if self.end_tokens.contains(&id) {
            Some(FinishReason::Eos)
        } else if self.left() > 0 {
            None
        } else if self.stats.generated_tokens < self.max_tokens {
            Some(FinishReason::Context)
        } else {
            Some(FinishReason::Length)
        }
    }
}
