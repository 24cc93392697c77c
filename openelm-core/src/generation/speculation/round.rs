//! A round: a choice after the last token and after each draft, and the drafts that equal it.

use mlx_rs::Array;

use crate::{
    error::Result,
    generation::{
        chooser::Chooser,
        options::GenerateOptions,
        step::{Step, StepValues},
    },
};

/// A round in progress on the device.
#[derive(Debug)]
pub(in crate::generation) struct Round {
    drafts: Vec<u32>,
    /// The choices after the last token and after each draft.
    steps: Vec<Step>,
    /// The state after each choice.
    choosers: Vec<Chooser>,
}

/// The result of a round.
#[derive(Debug)]
pub(in crate::generation) struct Verified {
    /// Number of drafts.
    pub(in crate::generation) drafted: usize,
    /// The accepted drafts and the choice after them.
    pub(in crate::generation) tokens: Vec<StepValues>,
    /// The state after the last of `tokens`, which it has not accepted yet.
    pub(in crate::generation) chooser: Chooser,
}

impl Round {
    /// The graph of the choices of `chooser` after the token `last` and after each of `drafts`, from
    /// one row of `logits`, f32 `[V]`, for each. `left` tokens may follow `last`. Nothing is
    /// evaluated.
    pub(in crate::generation) fn new(
        last: u32,
        drafts: Vec<u32>,
        logits: &[Array],
        mut chooser: Chooser,
        options: &GenerateOptions,
        left: usize,
    ) -> Result<Self> {
        let (mut steps, mut choosers) = (Vec::new(), Vec::new());
        let tokens = std::iter::once(&last).chain(&drafts);
        // Choices after a draft that is not accepted are not used.
        for (index, (&token, logits)) in tokens.zip(logits).enumerate() {
            match chooser.accept(token) {
                // A draft that the constraint does not allow is not chosen.
                Err(_) if index > 0 => break,
                accepted => accepted?,
            }
            steps.push(chooser.step(options, logits, left.saturating_sub(index))?);
            choosers.push(chooser.clone());
        }
        Ok(Self {
            drafts,
            steps,
            choosers,
        })
    }

    /// The arrays that the round evaluates.
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
        let chooser = self.choosers.swap_remove(tokens.len() - 1);
        Ok(Verified {
            drafted,
            tokens,
            chooser,
        })
    }
}
