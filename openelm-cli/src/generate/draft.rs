//! The draft model of `--draft-model`.

use std::path::PathBuf;

use openelm_core::{
    LanguageModel,
    generation::{DEFAULT_DRAFT_TOKENS, DraftModel},
};

use crate::{
    error::Error,
    hub::{self, Files},
    model::ModelArgs,
};

/// Options of the draft model.
#[derive(clap::Args)]
pub(super) struct DraftArgs {
    /// Smaller model, a folder or repository, that drafts tokens, which the model verifies in one pass: the same text,
    /// faster; needs the same tokenizer
    #[arg(long, value_name = "PATH|REPO")]
    draft_model: Option<PathBuf>,

    /// Maximum number of tokens that the draft model drafts per pass
    #[arg(long, default_value_t = DEFAULT_DRAFT_TOKENS, value_name = "N")]
    num_draft_tokens: usize,
}

impl DraftArgs {
    /// Downloads the draft model if it is the name of a repository.
    pub(super) fn fetch(&mut self, quiet: bool) -> Result<(), Error> {
        if let Some(model) = &mut self.draft_model {
            *model = hub::local(model, &Files::Model, quiet)?;
        }
        Ok(())
    }

    /// The draft model for `target`, which `model` loaded; `None` without `--draft-model`.
    pub(super) fn load(
        &self,
        model: &ModelArgs,
        target: &LanguageModel,
        quiet: bool,
    ) -> Result<Option<DraftModel>, Error> {
        let Some(folder) = &self.draft_model else {
            return Ok(None);
        };
        let draft = model.load_other(folder, quiet)?;
        Ok(Some(DraftModel::new(
            target,
            &draft,
            self.num_draft_tokens,
        )?))
    }
}
