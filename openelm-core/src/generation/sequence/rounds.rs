//! The rounds of a sequence with speculation: drafts, their pass, and what is accepted.

use mlx_rs::Array;

use super::Sequence;
use crate::{
    error::{Error, Result},
    generation::{
        phase::Phase,
        prompt_cache::UNKNOWN,
        speculation::{DraftModel, Round, Speculation},
    },
    model::Model,
};

impl Sequence {
    /// Drafts tokens with `draft`. `model` is the sequence's.
    pub(in crate::generation) fn draft_with(
        &mut self,
        model: &Model,
        draft: &DraftModel,
    ) -> Result<()> {
        if self.options.prompt_lookup > 0 {
            let problem = "expected 0 with a draft model".to_owned();
            let found = self.options.prompt_lookup;
            return Err(Error::option(
                "prompt_lookup",
                format!("{problem}, found {found}"),
            ));
        }
        let prompt = &self.cache.tokens()[..self.prompt];
        if prompt.contains(&UNKNOWN) {
            let problem = "not with a prompt cache whose tokens are unknown";
            return Err(Error::option("draft_model", problem));
        }
        draft.check(prompt, self.pieces)?;
        let parameters = model.config().parameter_count();
        let speculation = Speculation::draft_model(draft, parameters, self.pieces, self.chunk)?;
        self.speculate(speculation, "draft_model")
    }

    /// Uses the drafts of `option` from now on. A rotating cache is refused: the positions of drafts
    /// that are not accepted must be removed.
    pub(super) fn speculate(
        &mut self,
        speculation: Speculation,
        option: &'static str,
    ) -> Result<()> {
        if self.options.kv_cache.max_kv_size.is_some() {
            return Err(Error::option(option, "not with max_kv_size"));
        }
        self.speculation = Some(speculation);
        Ok(())
    }

    /// Reads the round in progress. The positions of drafts that were not accepted are removed.
    pub(super) fn read_round(&mut self, model: &Model) -> Result<()> {
        let Phase::Verify(round) = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        let round = round.read()?;
        let accepted = round.tokens.len() - 1;
        if let Some(speculation) = &mut self.speculation {
            speculation.verified(round.drafted, accepted);
        }
        self.cache.truncate(self.cache.tokens().len() + accepted);
        self.chooser = round.chooser;
        self.progress.stats.drafted_tokens += round.drafted;
        for (index, values) in round.tokens.into_iter().enumerate() {
            self.progress.stats.accepted_tokens += usize::from(index < accepted);
            if let Some(reason) = self.take_token(model, values)? {
                self.cache.truncate(self.cache.tokens().len() - 1);
                return self.end(reason);
            }
        }
        self.phase = Phase::Read { drafts: Vec::new() };
        Ok(())
    }

    /// True if the step in progress must be read before the next pass, which may have drafts.
    pub(super) fn expects_drafts(&self) -> bool {
        let decoding = matches!(self.phase, Phase::Decode { .. });
        // After this step, a draft and the token that follows it.
        let fit = self.progress.left() >= 3;
        let speculation = self.speculation.as_ref().filter(|_| decoding && fit);
        speculation.is_some_and(|speculation| speculation.expects(self.cache.tokens()))
    }

    /// Drafts after the last token; may be empty.
    pub(super) fn drafts(&mut self) -> Result<Vec<u32>> {
        // The pass also gives the token after the drafts.
        let left = self.progress.left().saturating_sub(1);
        let most = left.min(self.cache.drafts_before_quantization());
        match &mut self.speculation {
            Some(speculation) => {
                speculation.propose(self.cache.tokens(), self.chooser.sampler(), most)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Takes the logits after the last token and after each of `drafts`.
    pub(super) fn passed_drafts(&mut self, drafts: Vec<u32>, logits: &[Array]) -> Result<()> {
        let last = self.last_token();
        self.phase = match logits {
            [logits] => {
                if let Some(speculation) = &mut self.speculation {
                    speculation.verified(0, 0);
                }
                self.chooser.accept(last)?;
                let step = self
                    .chooser
                    .step(&self.options, logits, self.progress.left())?;
                Phase::Decode { step, next: None }
            }
            logits => {
                let chooser = self.chooser.clone();
                let left = self.progress.left();
                let round = Round::new(last, drafts, logits, chooser, &self.options, left)?;
                Phase::Verify(round)
            }
        };
        Ok(())
    }
}
