//! The speculation of one sequence: its drafter and the number of drafts.

use super::{
    draft_length::{Cost, DraftLength},
    draft_model::{DraftModel, ModelDrafter},
    drafter::Drafter,
    prompt_lookup::PromptLookup,
};
use crate::{error::Result, generation::sampling::Sampler, mlx::Device};

/// Drafts of one sequence.
#[derive(Debug)]
pub(in crate::generation) struct Speculation {
    drafter: Box<dyn Drafter>,
    length: DraftLength,
}

impl Speculation {
    /// At most `most` drafts per round, found in the prompt and the text.
    pub(in crate::generation) fn prompt_lookup(most: usize) -> Result<Self> {
        Self::new(Box::new(PromptLookup), most)
    }

    /// Drafts of `draft` for a model of `parameters` parameters, with ids below `pieces`.
    pub(in crate::generation) fn draft_model(
        draft: &DraftModel,
        parameters: u64,
        pieces: usize,
        chunk: usize,
    ) -> Result<Self> {
        let drafter = ModelDrafter::new(draft, parameters, pieces, chunk);
        Self::new(Box::new(drafter), draft.num_draft_tokens())
    }

    fn new(drafter: Box<dyn Drafter>, most: usize) -> Result<Self> {
        let cost = Cost::new(Device::current()?, drafter.cost());
        let length = DraftLength::new(most, cost);
        Ok(Self { drafter, length })
    }

    /// Reads `known`, the beginning of the prompt.
    pub(in crate::generation) fn read_prompt(&mut self, known: &[u32]) -> Result<()> {
        self.drafter.read_prompt(known)
    }

    /// True if the token after `known`, which the device computes now, must be read before its pass
    /// is made, because drafts may follow it.
    pub(in crate::generation) fn expects(&self, known: &[u32]) -> bool {
        self.length.next() > 0 && self.drafter.expects(known)
    }

    /// Drafts after `known`, at most `most`; may be empty.
    pub(in crate::generation) fn propose(
        &mut self,
        known: &[u32],
        sampler: &Sampler,
        most: usize,
    ) -> Result<Vec<u32>> {
        match self.length.next().min(most) {
            0 => Ok(Vec::new()),
            most => self.drafter.propose(known, sampler, most),
        }
    }

    /// Counts a round whose pass had `drafted` drafts, which may be 0.
    pub(in crate::generation) fn verified(&mut self, drafted: usize, accepted: usize) {
        self.length.verified(drafted, accepted);
    }

    /// Counts a token of a pass without drafts.
    pub(in crate::generation) fn single(&mut self) {
        self.length.single();
    }
}
