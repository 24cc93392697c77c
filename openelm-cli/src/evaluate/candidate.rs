//! A model that is evaluated.

use std::path::{Path, PathBuf};

use openelm_core::{Device, Error as CoreError, LanguageModel, evaluate::Scorer};
use serde_json::{Map, Value, json};

use super::{Scores, Session, file_name, samples, tasks::evaluate};
use crate::{adapters::add_adapters, error::Error};

/// A model to evaluate.
pub(super) struct Candidate<'a> {
    pub(super) folder: &'a Path,
    /// The model of --against.
    pub(super) is_other: bool,
    pub(super) adapters: &'a [String],
    pub(super) output: Option<PathBuf>,
}

impl Candidate<'_> {
    /// Loads the model with its adapters.
    pub(super) fn load(&self, session: &Session<'_>) -> Result<LanguageModel, Error> {
        let args = session.args;
        let mut model = if self.is_other {
            args.model.load_other(self.folder, args.quiet)?
        } else {
            args.model.load(args.quiet)?
        };
        add_adapters(model.model_mut(), self.adapters)?;
        if let Some(texts) = &session.texts {
            texts.options.windows.check(model.model().config())?;
        }
        Ok(model)
    }

    /// Scores the model.
    pub(super) fn scores(
        &self,
        session: &Session<'_>,
        model: &LanguageModel,
    ) -> Result<Scores, Error> {
        self.scored(session, model).map_err(|error| match error {
            Error::Core(error @ CoreError::NonFinite { .. }) => samples::wrong(self.folder, error),
            other => other,
        })
    }

    fn scored(&self, session: &Session<'_>, model: &LanguageModel) -> Result<Scores, Error> {
        let args = session.args;
        let about = self.about(model)?;
        if let Some(output) = &self.output {
            samples::open_folder(output, &about)?;
        }
        let mut scorer = Scorer::new(model)?;
        session.interrupt.cancels(scorer.cancel_handle());
        let output = self.output.as_deref();
        let tasks = evaluate(&mut scorer, &session.tasks_questions, output, args.quiet);
        let tasks = session.result(tasks)?;
        let groups = session.plan.group_results(&tasks)?;
        let perplexity = match &session.texts {
            Some(texts) => Some(session.result(texts.perplexity(&mut scorer))?),
            None => None,
        };
        Ok(Scores {
            name: self.name(),
            tasks,
            groups,
            perplexity,
            about,
        })
    }

    fn name(&self) -> String {
        let mut name = file_name(self.folder);
        for adapter in self.adapters {
            name += &format!(" + {}", file_name(Path::new(adapter)));
        }
        name
    }

    fn about(&self, model: &LanguageModel) -> Result<Map<String, Value>, Error> {
        let about = json!({
            "model": self.folder,
            "adapters": self.adapters,
            "model_num_parameters": model.model().config().parameter_count(),
            "model_dtype": model.model().dtype().to_string(),
            "model_fingerprint": model.model().fingerprint()?,
            "device": Device::current()?.to_string(),
        });
        let Value::Object(about) = about else {
            return Ok(Map::new());
        };
        Ok(about)
    }
}
