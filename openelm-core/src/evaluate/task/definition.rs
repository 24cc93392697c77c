//! Definitions of tasks: lm-eval's keys, checked.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    keys::Keys,
    metric::{MetricSpec, OutputType, ProcessResults},
};
use crate::error::Result;

/// A task.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// The file, for errors.
    pub(super) source: PathBuf,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) version: String,
    /// Name of the data set on the Hub.
    pub(super) dataset_path: String,
    /// Configuration of the data set.
    pub(super) dataset_name: Option<String>,
    pub(super) training_split: Option<String>,
    pub(super) validation_split: Option<String>,
    pub(super) test_split: Option<String>,
    pub(super) output_type: OutputType,
    pub(super) process_results: ProcessResults,
    pub(super) metrics: Vec<MetricSpec>,
    pub(super) description: String,
    pub(super) question: Prompt,
    pub(super) fewshot: Fewshot,
    pub(super) num_fewshot: Option<usize>,
}

/// The parts of a question.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) doc_to_text: Part,
    pub(super) doc_to_target: Part,
    pub(super) doc_to_choice: Option<Part>,
    pub(super) target_delimiter: String,
    pub(super) fewshot_delimiter: String,
}

/// The examples before a question.
#[derive(Debug, Clone)]
pub(super) struct Fewshot {
    pub(super) split: Option<String>,
    pub(super) samples: Option<Vec<Value>>,
    pub(super) sampler: Sampler,
    pub(super) prompt: Prompt,
}

/// A part of a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// A column or a template.
    Text(String),
    /// A constant.
    Number(i64),
    /// A constant list.
    List(Vec<Value>),
}

/// The choice of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampler {
    /// At random.
    Default,
    /// The first ones.
    FirstN,
}

/// Known keys, for the error of an unknown one.
const KEYS: &str = "task, dataset_path, dataset_name, training_split, validation_split, \
    test_split, fewshot_split, fewshot_config, num_fewshot, output_type, doc_to_text, \
    doc_to_target, doc_to_choice, description, target_delimiter, fewshot_delimiter, \
    process_results, metric_list, include, tag, metadata";
const FEWSHOT_KEYS: &str = "sampler, split, samples, doc_to_text, doc_to_target, doc_to_choice, \
    target_delimiter, fewshot_delimiter";

/// Longest name of a task in bytes: it is part of the names of files.
const MAX_NAME: usize = 200;

/// True for a name that can be part of the name of a file.
fn is_file_name(name: &str) -> bool {
    let is_wrong = |c: char| c.is_control() || c == '/' || c == '\\';
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(is_wrong)
}

impl Definition {
    /// The task of the file `source` with the keys `map`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an unknown key, a value of another type or a
    /// missing key.
    pub(super) fn new(source: &Path, map: Map<String, Value>) -> Result<Self> {
        let mut keys = Keys::new(source, "", map);
        let name = keys.text("task")?.ok_or_else(|| keys.missing("task"))?;
        if !is_file_name(&name) {
            let problem = format!(
                "expected 1 to {MAX_NAME} bytes without slashes and control characters, found {}",
                Value::from(name)
            );
            return Err(keys.fault("task", problem));
        }
        // Information, and keys that change nothing here.
        keys.ignore(&["task_alias", "dataset_kwargs", "should_decontaminate"]);
        keys.ignore(&["doc_to_decontamination_query", "unsafe_code"]);
        if let Some(repeats) = keys.count("repeats")?
            && repeats != 1
        {
            return Err(keys.fault("repeats", format!("expected 1, found {repeats}")));
        }
        let output_type = OutputType::new(&mut keys)?;
        let process_results = ProcessResults::new(&mut keys)?;
        let question = Prompt {
            doc_to_text: part(&mut keys, "doc_to_text")?.unwrap_or(Part::Text(String::new())),
            doc_to_target: part(&mut keys, "doc_to_target")?
                .ok_or_else(|| keys.missing("doc_to_target"))?,
            doc_to_choice: part(&mut keys, "doc_to_choice")?,
            target_delimiter: keys.text("target_delimiter")?.unwrap_or_else(|| " ".into()),
            fewshot_delimiter: (keys.text("fewshot_delimiter")?).unwrap_or_else(|| "\n\n".into()),
        };
        if (output_type == OutputType::MultipleChoice) != question.doc_to_choice.is_some() {
            return Err(match output_type {
                OutputType::MultipleChoice => keys.missing("doc_to_choice"),
                _ => keys.fault("doc_to_choice", "expected only with `multiple_choice`"),
            });
        }
        let definition = Self {
            source: source.to_path_buf(),
            tags: texts(&mut keys, "tag")?,
            version: version(&mut keys),
            dataset_path: keys.text("dataset_path")?.unwrap_or_default(),
            dataset_name: keys.text("dataset_name")?,
            training_split: keys.text("training_split")?,
            validation_split: keys.text("validation_split")?,
            test_split: keys.text("test_split")?,
            output_type,
            process_results,
            metrics: MetricSpec::list(&mut keys, output_type, process_results)?,
            description: keys.text("description")?.unwrap_or_default(),
            fewshot: Fewshot::new(&mut keys, &question)?,
            num_fewshot: keys.count("num_fewshot")?,
            question,
            name,
        };
        if definition.test_split.is_none() && definition.validation_split.is_none() {
            return Err(keys.fault("test_split", "missing, and `validation_split` too"));
        }
        keys.finish(KEYS)?;
        Ok(definition)
    }

    /// The split of the questions.
    pub(super) fn split(&self) -> &str {
        let split = self.test_split.as_ref().or(self.validation_split.as_ref());
        split.map(String::as_str).unwrap_or_default()
    }

    /// The data set's name and configuration.
    pub(super) fn dataset(&self) -> String {
        match &self.dataset_name {
            None => self.dataset_path.clone(),
            Some(name) => format!("{} ({name})", self.dataset_path),
        }
    }
}

impl Fewshot {
    fn new(keys: &mut Keys<'_>, question: &Prompt) -> Result<Self> {
        let split = keys.text("fewshot_split")?;
        let config = keys.take("fewshot_config");
        let config = config.unwrap_or_else(|| Value::Object(Map::new()));
        let mut config = keys.nested("fewshot_config", config)?;
        let sampler = match config.text("sampler")?.as_deref() {
            None | Some("default") => Sampler::Default,
            Some("first_n") => Sampler::FirstN,
            Some(other) => {
                let problem = format!("expected `default` or `first_n`, found `{other}`");
                return Err(config.fault("sampler", problem));
            }
        };
        let samples = match config.list("samples") {
            None => None,
            Some(samples) => {
                if let Some(other) = samples.iter().find(|sample| !sample.is_object()) {
                    return Err(config.wrong("samples", "a list of documents", other));
                }
                Some(samples)
            }
        };
        let fewshot = Self {
            split: config.text("split")?.or(split),
            samples,
            sampler,
            prompt: Prompt {
                doc_to_text: part(&mut config, "doc_to_text")?
                    .unwrap_or_else(|| question.doc_to_text.clone()),
                doc_to_target: part(&mut config, "doc_to_target")?
                    .unwrap_or_else(|| question.doc_to_target.clone()),
                doc_to_choice: part(&mut config, "doc_to_choice")?
                    .or_else(|| question.doc_to_choice.clone()),
                target_delimiter: config
                    .text("target_delimiter")?
                    .unwrap_or_else(|| question.target_delimiter.clone()),
                fewshot_delimiter: config
                    .text("fewshot_delimiter")?
                    .unwrap_or_else(|| question.fewshot_delimiter.clone()),
            },
        };
        config.finish(FEWSHOT_KEYS)?;
        Ok(fewshot)
    }
}

/// A part of a question.
fn part(keys: &mut Keys<'_>, key: &str) -> Result<Option<Part>> {
    Ok(match (key, keys.take(key)) {
        (_, None) => None,
        (_, Some(Value::String(text))) => Some(Part::Text(text)),
        ("doc_to_choice", Some(Value::Object(choices))) => Some(Part::List(
            choices.into_iter().map(|(_, choice)| choice).collect(),
        )),
        ("doc_to_choice" | "doc_to_target", Some(Value::Array(values))) => {
            if let Some(other) = values.iter().find(|value| !value.is_string())
                && key == "doc_to_choice"
            {
                return Err(keys.wrong(key, "choices of text", other));
            }
            Some(Part::List(values))
        }
        ("doc_to_choice", Some(other)) => {
            return Err(keys.wrong(key, "a column, a template or a list", &other));
        }
        (_, Some(value)) => match value.as_i64() {
            Some(number) => Some(Part::Number(number)),
            None => return Err(keys.wrong(key, "a column or a template", &value)),
        },
    })
}

/// A list of texts, or one text.
pub(super) fn texts(keys: &mut Keys<'_>, key: &str) -> Result<Vec<String>> {
    let values = keys.list(key).unwrap_or_default();
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        other => Err(keys.wrong(key, "text", &other)),
    });
    texts.collect()
}

/// `metadata.version` as text; empty if there is none.
pub(super) fn version(keys: &mut Keys<'_>) -> String {
    let metadata = keys.take("metadata").unwrap_or_default();
    match metadata.get("version") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(version)) => version.clone(),
        Some(version) => version.to_string(),
    }
}
