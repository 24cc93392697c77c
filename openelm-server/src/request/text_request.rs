//! The parts that completion and chat requests have in common.

use openelm_core::generation::GenerateOptions;
use serde_json::{Value, json};

use super::{
    adapters::{ActiveAdapters, adapters},
    generation_options::generation_options,
    prompts::PromptInput,
    structured_output::compile,
};
use crate::{api_error::ApiError, app::App, fields::Fields};

/// Largest number of texts for a prompt.
const MAX_N: usize = 128;
/// Largest number of texts of a request.
const MAX_TEXTS: usize = 2048;
/// Largest number of most likely tokens at a place.
pub(super) const MAX_LOGPROBS: usize = 20;

/// A request for texts.
#[derive(Debug)]
pub(crate) struct TextRequest {
    /// Name of the model, or of the adapter that was requested as one.
    pub(crate) model: String,
    /// Prompts, at least one.
    pub(crate) prompts: Vec<PromptInput>,
    /// Number of texts for each prompt.
    pub(crate) n: usize,
    /// Number of most likely tokens to report; `None` for no log-probabilities.
    pub(crate) logprobs: Option<usize>,
    /// Prompts are part of the texts.
    pub(crate) echo: bool,
    /// The response is a stream of events.
    pub(crate) stream: bool,
    /// The stream ends with the usage.
    pub(crate) include_usage: bool,
    /// Options of each generation.
    pub(crate) options: GenerateOptions,
    /// The field with the constraint of `options`.
    constraint_field: Option<&'static str>,
    /// Active adapters; `None` for those of the server.
    pub(crate) adapters: Option<ActiveAdapters>,
}

impl TextRequest {
    /// Reads the common fields; the request has no prompts yet.
    pub(super) fn read(fields: &mut Fields, app: &App) -> Result<Self, ApiError> {
        let (model, adapters) = adapters(fields, app)?;
        let (options, constraint_field) = generation_options(fields, app.options.generate.clone())?;
        let n = fields.count("n")?.unwrap_or(1);
        if !(1..=MAX_N).contains(&n) {
            let problem = format!("expected 1 to {MAX_N}, found {n}");
            return Err(ApiError::field("n", problem));
        }
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let include_usage = match fields.object("stream_options")? {
            None => false,
            Some(_) if !stream => {
                let problem = "no effect without stream";
                return Err(ApiError::field("stream_options", problem));
            }
            Some(mut stream_options) => {
                stream_options.without_effect("include_obfuscation", &[json!(false)])?;
                let include = stream_options.boolean("include_usage")?;
                stream_options.finish()?;
                include.unwrap_or(false)
            }
        };
        // Fields of OpenAI with the values that request nothing.
        let nothing: [(&str, &[Value]); 9] = [
            ("suffix", &[json!("")]),
            ("store", &[json!(false)]),
            ("tools", &[json!([])]),
            ("functions", &[json!([])]),
            ("tool_choice", &[json!("none")]),
            ("modalities", &[json!(["text"])]),
            ("metadata", &[json!({})]),
            ("service_tier", &[json!("auto"), json!("default")]),
            ("best_of", &[json!(n)]),
        ];
        for (name, values) in nothing {
            fields.without_effect(name, values)?;
        }
        // A name of the end user, without effect on the text.
        fields.string("user")?;
        Ok(Self {
            model,
            prompts: Vec::new(),
            n,
            logprobs: None,
            echo: false,
            stream,
            include_usage,
            options,
            constraint_field,
            adapters,
        })
    }

    /// Sets the prompts, checks the number of texts, and compiles the constraint.
    pub(super) fn with_prompts(
        mut self,
        prompts: Vec<PromptInput>,
        app: &App,
    ) -> Result<Self, ApiError> {
        let texts = prompts.len().saturating_mul(self.n);
        if texts > MAX_TEXTS {
            let problem = format!("expected at most {MAX_TEXTS} texts of a request, found {texts}");
            return Err(ApiError::field("n", problem));
        }
        self.prompts = prompts;
        if let Some((field, kind)) = self.constraint_field.zip(self.options.constraint.as_ref()) {
            compile(field, kind, app)?;
        }
        Ok(self)
    }

    /// Sets the log-probabilities to report.
    pub(super) fn with_logprobs(mut self, logprobs: Option<usize>) -> Self {
        // The core reports none for 0; the chosen token comes with the first.
        self.options.logprobs = logprobs.map_or(0, |top| top.max(1));
        self.logprobs = logprobs;
        self
    }

    /// The options of the text `index` of a prompt: with a seed, each has its own.
    pub(crate) fn options_of(&self, index: usize) -> GenerateOptions {
        let mut options = self.options.clone();
        let seed = &mut options.sampling.seed;
        *seed = seed.map(|seed| seed.wrapping_add(index as u64));
        options
    }

    /// The prompt of the text `index`.
    pub(crate) fn prompt_of(&self, index: usize) -> Option<&PromptInput> {
        self.prompts.get(index / self.n)
    }

    /// Number of texts.
    pub(crate) fn texts(&self) -> usize {
        self.prompts.len() * self.n
    }
}

/// A number of most likely tokens, in range.
pub(super) fn checked_top(name: &str, top: usize) -> Result<usize, ApiError> {
    if top > MAX_LOGPROBS {
        let problem = format!("expected at most {MAX_LOGPROBS}, found {top}");
        return Err(ApiError::field(name, problem));
    }
    Ok(top)
}
