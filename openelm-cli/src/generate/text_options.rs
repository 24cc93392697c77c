//! The options of the texts in a file of `--output`, in a file beside it: the same options continue
//! it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use openelm_core::{
    LanguageModel,
    constraint::ConstraintKind,
    generation::{EosToken, GenerateOptions, KvCacheOptions, Sampling},
    output::write_file,
    text::{MAX_TEXT, read_text_file},
    train::RunDifference,
};
use serde_json::{Map, Value, json};

use super::prompt::PromptKind;
use crate::{adapters::AdapterArgs, error::Error, model::ModelArgs};

/// The options that change a text, by the core's names. Options of speed are not among them.
pub(super) struct TextOptions {
    options: Map<String, Value>,
    /// The hash of the weights and adapters; `None` until the model is loaded.
    weights: Option<String>,
}

impl TextOptions {
    pub(super) fn new(
        model: &ModelArgs,
        adapters: &AdapterArgs,
        kind: &PromptKind,
        options: &GenerateOptions,
    ) -> Self {
        let mut all = Map::new();
        let mut set = |name: &str, value: Value| _ = all.insert(name.to_owned(), value);
        set("model", json!(model.place()));
        set("tokenizer", json!(model.tokenizer_place()));
        set("dtype", json!(model.dtype.map(|dtype| dtype.to_string())));
        set("keep_quantized", json!(model.keep_quantized));
        set("adapter", json!(adapters.places()));
        kind.record(&mut set);
        generate_options(options, &mut set);
        Self {
            options: all,
            weights: None,
        }
    }

    /// These options with the loaded model.
    ///
    /// # Errors
    /// Errors of MLX.
    pub(super) fn with_model(mut self, model: &LanguageModel) -> Result<Self, Error> {
        self.weights = Some(model.model().fingerprint()?);
        Ok(self)
    }

    /// Writes the options of the first text of `output`.
    ///
    /// # Errors
    /// If another file is in place, or it cannot be written.
    pub(super) fn save(&self, output: &Path) -> Result<(), Error> {
        let place = beside(output);
        if let Err(Problem::Other(problem)) = read(&place) {
            return Err(error(&place, problem));
        }
        let object = json!({ "options": self.options, "weights": self.weights });
        Ok(write_file(place, format!("{object:#}\n"))?)
    }

    /// Compares with the options of the texts in `output`.
    ///
    /// # Errors
    /// If an option differs, or the options of the texts are not known.
    pub(super) fn check(&self, output: &Path) -> Result<(), Error> {
        let place = beside(output);
        let (options, weights) = read(&place).map_err(|problem| match problem {
            Problem::Missing => {
                let file = place.file_name().unwrap_or_default().display();
                let problem = format!("the file of its options, {file}, is missing");
                error(output, format!("{problem}; choose another file"))
            }
            Problem::Other(problem) => error(&place, problem),
        })?;
        let added = self
            .options
            .keys()
            .filter(|name| !options.contains_key(*name));
        let names = options.keys().chain(added);
        let mut differences: Vec<_> = names
            .filter(|name| options.get(*name) != self.options.get(*name))
            .map(|name| RunDifference {
                option: name.clone(),
                expected: shown(options.get(name)),
                found: shown(self.options.get(name)),
            })
            .collect();
        if let Some(found) = &self.weights
            && differences.is_empty()
            && *found != weights
        {
            differences.push(RunDifference {
                option: "model".into(),
                expected: format!("weights and adapters with the hash {weights}"),
                found: found.clone(),
            });
        }
        if differences.is_empty() {
            return Ok(());
        }
        let path = output.to_owned();
        Err(openelm_core::Error::OtherRun { path, differences }.into())
    }
}

/// The file beside `output`.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".options.json");
    name.into()
}

enum Problem {
    Missing,
    Other(String),
}

/// The options of a file, and the hash of the weights.
fn read(path: &Path) -> Result<(Map<String, Value>, String), Problem> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Problem::Missing),
        _ => read_text_file(path, MAX_TEXT),
    };
    let text = text.map_err(|error| Problem::Other(error.to_string()))?;
    let mut object: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    match (object.remove("options"), object.remove("weights")) {
        (Some(Value::Object(options)), Some(Value::String(weights))) if object.is_empty() => {
            Ok((options, weights))
        }
        _ => Err(Problem::Other(
            "expected the options of an --output file, found another file; choose another --output"
                .into(),
        )),
    }
}

/// A value of an option in an error.
fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".into(),
        Some(Value::Array(list)) if list.is_empty() => "none".into(),
        Some(value) => value.to_string(),
    }
}

fn error(path: &Path, problem: impl ToString) -> Error {
    Error::Prompt {
        place: path.display().to_string(),
        problem: problem.to_string(),
    }
}

fn generate_options(options: &GenerateOptions, set: &mut impl FnMut(&str, Value)) {
    // A new option must be listed here.
    let GenerateOptions {
        max_tokens,
        sampling,
        stop,
        logprobs: _,
        logprobs_of: _,
        prompt_logprobs: _,
        prefill_chunk: _,
        ignore_eos,
        kv_cache,
        extra_eos_tokens,
        constraint,
        at_limit,
        prompt_lookup: _,
    } = options;
    set("max_tokens", json!(max_tokens));
    sampling_options(sampling, set);
    set("stop", json!(stop));
    match constraint {
        None => {}
        Some(ConstraintKind::Choice(texts)) => set("choice", json!(texts)),
        Some(
            kind @ (ConstraintKind::JsonSchema(text)
            | ConstraintKind::Regex(text)
            | ConstraintKind::Grammar(text)),
        ) => set(kind.option(), json!(text)),
        Some(kind) => set(kind.option(), json!(format!("{kind:?}"))),
    }
    let end = format!("{at_limit:?}").to_lowercase();
    set("at_limit", json!(end));
    set("ignore_eos", json!(ignore_eos));
    let tokens = extra_eos_tokens.iter().map(|token| match token {
        EosToken::Id(id) => json!(id),
        EosToken::Piece(piece) => json!(piece),
    });
    set("extra_eos_tokens", tokens.collect());
    let KvCacheOptions {
        max_kv_size,
        keep: _,
        kv_bits,
        kv_group_size,
        quantized_kv_start,
    } = kv_cache;
    set("max_kv_size", json!(max_kv_size));
    set("kv_bits", json!(kv_bits));
    set("kv_group_size", json!(kv_group_size));
    set("quantized_kv_start", json!(quantized_kv_start));
}

fn sampling_options(sampling: &Sampling, set: &mut impl FnMut(&str, Value)) {
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
        top_n_sigma,
        xtc_probability,
        xtc_threshold,
        repetition_penalty,
        repetition_context_size,
        presence_penalty,
        presence_context_size,
        frequency_penalty,
        frequency_context_size,
        dry_multiplier,
        dry_base,
        dry_allowed_length,
        dry_penalty_last_n,
        dry_sequence_breakers,
        logit_bias,
        min_tokens,
        banned_strings,
        forced_prefix,
        seed,
    } = sampling;
    set("temperature", number(*temperature));
    set("top_k", json!(top_k));
    set("top_p", number(*top_p));
    set("min_p", number(*min_p));
    set("typical_p", number(*typical_p));
    set("top_n_sigma", number(*top_n_sigma));
    set("xtc_probability", number(*xtc_probability));
    set("xtc_threshold", number(*xtc_threshold));
    set("repetition_penalty", number(*repetition_penalty));
    set("repetition_context_size", json!(repetition_context_size));
    set("presence_penalty", number(*presence_penalty));
    set("presence_context_size", json!(presence_context_size));
    set("frequency_penalty", number(*frequency_penalty));
    set("frequency_context_size", json!(frequency_context_size));
    set("dry_multiplier", number(*dry_multiplier));
    set("dry_base", number(*dry_base));
    set("dry_allowed_length", json!(dry_allowed_length));
    set("dry_penalty_last_n", json!(dry_penalty_last_n));
    set("dry_sequence_breakers", json!(dry_sequence_breakers));
    let bias = logit_bias.iter().map(|(id, bias)| format!("{id}{bias:+}"));
    set("logit_bias", json!(bias.collect::<Vec<_>>()));
    set("min_tokens", json!(min_tokens));
    set("banned_strings", json!(banned_strings));
    set("forced_prefix", json!(forced_prefix));
    set("seed", json!(seed));
}

/// The shortest decimal of a number.
fn number(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().ok())
}
