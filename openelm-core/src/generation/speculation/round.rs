//! A round: a choice after the last token and after each draft, and the drafts that equal it.

use mlx_rs::Array;

use crate::{
    error::Result,
    generation::{
        sampling::Sampler,
        step::{Step, StepValues},
    },
};

/// A round in progress on the device.
#[derive(Debug)]
pub(in crate::generation) struct Round {
    drafts: Vec<u32>,
    /// The choices after the last token and after each draft.
    steps: Vec<Step>,
    /// The sampler after each choice.
    samplers: Vec<Sampler>,
}

/// The result of a round.
#[derive(Debug)]
pub(in crate::generation) struct Verified {
    /// Number of drafts.
    pub(in crate::generation) drafted: usize,
    /// The accepted drafts and the choice after them.
    pub(in crate::generation) tokens: Vec<StepValues>,
    /// The sampler after the last of `tokens`, which it has not accepted yet.
    pub(in crate::generation) sampler: Sampler,
}

impl Round {
    /// The graph of the choices of `sampler` after the token `last` and after each of `drafts`,
    /// from one row of `logits`, f32 `[V]`, for each. Nothing is evaluated.
    pub(in crate::generation) fn new(
        last: u32,
        drafts: Vec<u32>,
        logits: &[Array],
        mut sampler: Sampler,
        likeliest: usize,
    ) -> Result<Self> {
        let (mut steps, mut samplers) = (Vec::new(), Vec::new());
        // Choices after a draft that is not accepted are not used.
        for (&token, logits) in std::iter::once(&last).chain(&drafts).zip(logits) {
            if sampler.reads_history() {
                sampler.accept(token);
            }
            steps.push(Step::new(logits, &mut sampler, likeliest)?);
            samplers.push(sampler.clone());
        }
        Ok(Self {
            drafts,
            steps,
            samplers,
        })
    }

    /// What is evaluated in the round.
    pub(in crate::generation) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.steps.iter().flat_map(Step::arrays)
    }

    /// Waits for the round.
    pub(in crate::generation) fn settle(&self) -> Result<()> {
        self.steps.iter().try_for_each(Step::settle)
    }

    /// Waits for the round, whose evaluation was started, and reads it.
    pub(in crate::generation) fn read(mut self) -> Result<Verified> {
        let drafted = self.drafts.len();
        let mut tokens = Vec::with_capacity(drafted + 1);
        for step in &self.steps {
            let values = step.read()?;
            let equal = self.drafts.get(tokens.len()) == Some(&values.id);
            tokens.push(values);
            if !equal {
                break;
            }
        }
        let sampler = self.samplers.swap_remove(tokens.len() - 1);
        Ok(Verified {
            drafted,
            tokens,
            sampler,
        })
    }
}
