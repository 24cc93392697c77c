//! A decoding step in progress on the device: the choice of a token from its logits.

use mlx_rs::{
    Array,
    ops::{self, indexing::TryIndexOp},
};

use super::{
    event::TokenLogprob,
    options::{GenerateOptions, LogprobsOf},
    sampling::Sampler,
};
use crate::{error::Result, mlx::evaluation};

/// A step in progress on the device.
#[derive(Debug)]
pub(super) struct Step {
    /// The token, u32 `[1]`.
    token: Array,
    /// Sum of the logits, f32 scalar: shows NaN and infinity for one operation per step.
    sum: Array,
    /// [`Choice::largest`](super::sampling::Choice::largest).
    largest: Option<Array>,
    logprobs: Option<StepLogprobs>,
}

/// Log-probabilities, computed in the step: an operation made later would wait for the next step.
#[derive(Debug)]
struct StepLogprobs {
    /// The chosen token's, f32 `[1]`.
    chosen: Array,
    /// The most likely ids, u32 `[N]`, most likely first.
    likeliest: Array,
    /// The log-probabilities of `likeliest`, f32 `[N]`.
    values: Array,
}

/// The values of a step that was evaluated.
#[derive(Debug)]
pub(super) struct StepValues {
    pub(super) id: u32,
    /// Sum of the logits.
    pub(super) sum: f32,
    /// The exclusions of the sampler allowed no token.
    pub(super) nothing_allowed: bool,
    pub(super) logprob: Option<f32>,
    pub(super) top_logprobs: Vec<TokenLogprob>,
}

impl Step {
    /// The graph that chooses a token from `logits`, f32 `[V]`, among those in `allowed`, bool
    /// `[V]`, with the log-probabilities that the options ask for. Nothing is evaluated.
    pub(super) fn new(
        logits: &Array,
        allowed: Option<&Array>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
    ) -> Result<Self> {
        let choice = sampler.choice(logits, allowed)?;
        let logprobs = match options.logprobs {
            0 => None,
            n => {
                let reported = match options.logprobs_of {
                    LogprobsOf::Model => logits.clone(),
                    LogprobsOf::Sampler => choice.logits()?,
                };
                let all = reported.subtract(reported.logsumexp(true)?)?;
                let order = ops::argsort_axis(all.negative()?, 0)?;
                let likeliest = order.try_index(..n as i32)?;
                Some(StepLogprobs {
                    chosen: all.take(&choice.token)?,
                    values: all.take(&likeliest)?,
                    likeliest,
                })
            }
        };
        Ok(Self {
            token: choice.token,
            sum: logits.sum(None)?,
            largest: choice.largest,
            logprobs,
        })
    }

    /// The token, u32 `[1]`, which may not be evaluated yet.
    pub(super) fn token(&self) -> &Array {
        &self.token
    }

    /// What is evaluated in the step.
    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        let logprobs = self.logprobs.iter();
        let logprobs = logprobs.flat_map(|l| [&l.chosen, &l.likeliest, &l.values]);
        [&self.token, &self.sum]
            .into_iter()
            .chain(&self.largest)
            .chain(logprobs)
    }

    /// Waits for the step.
    pub(super) fn settle(&self) -> Result<()> {
        Ok(self.token.eval()?)
    }

    /// Waits for the step, whose evaluation was started, and reads it.
    pub(super) fn read(&self) -> Result<StepValues> {
        let id = self.token.try_item_exact::<u32>()?;
        let sum = evaluation::finished::<f32>(&self.sum)?;
        let (logprob, top_logprobs) = match &self.logprobs {
            Some(logprobs) => (logprobs.chosen()?, logprobs.likeliest()?),
            None => (None, Vec::new()),
        };
        Ok(StepValues {
            id,
            nothing_allowed: match &self.largest {
                Some(largest) => evaluation::finished::<f32>(largest)? == [f32::NEG_INFINITY],
                None => false,
            },
            sum: sum.first().copied().unwrap_or(f32::NAN),
            logprob,
            top_logprobs,
        })
    }
}

impl Drop for Step {
    /// Waits for an unread step: MLX must be idle when its last array is dropped.
    fn drop(&mut self) {
        let _ = self.token.eval();
    }
}

/// The logits of a step whose choice was not made yet, in progress on the device.
#[derive(Debug)]
pub(super) struct PendingLogits(Array);

impl PendingLogits {
    /// The logits, f32 `[V]`.
    pub(super) fn new(logits: &Array) -> Self {
        Self(logits.clone())
    }

    /// The logits, f32 `[V]`.
    pub(super) fn as_array(&self) -> &Array {
        &self.0
    }

    /// Waits for the logits.
    pub(super) fn settle(&self) -> Result<()> {
        Ok(self.0.eval()?)
    }
}

impl Drop for PendingLogits {
    /// As for a [`Step`].
    fn drop(&mut self) {
        let _ = self.0.eval();
    }
}

impl StepLogprobs {
    /// The log-probability of the chosen token.
    fn chosen(&self) -> Result<Option<f32>> {
        Ok(evaluation::finished::<f32>(&self.chosen)?.first().copied())
    }

    /// The most likely tokens, most likely first, without excluded ones.
    fn likeliest(&self) -> Result<Vec<TokenLogprob>> {
        let logprobs = evaluation::finished::<f32>(&self.values)?;
        let ids = evaluation::finished::<u32>(&self.likeliest)?;
        let pairs = ids.into_iter().zip(logprobs);
        Ok(pairs
            .filter(|(_, logprob)| *logprob != f32::NEG_INFINITY)
            .map(|(id, logprob)| TokenLogprob { id, logprob })
            .collect())
    }
}
