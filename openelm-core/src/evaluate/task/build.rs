//! The making of questions from documents.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{
    data_files::{self, Split},
    definition::Definition,
    examples::Examples,
    metric::{OutputType, ProcessResults},
    prompt::{Placed, Prompts, Role, Target, Text},
    question::{Gold, Question, QuestionOptions},
    template::Document,
};
use crate::{
    error::{Error, Result},
    evaluate::ScoreRequest,
};

/// The data that a question's metrics need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scoring {
    /// Lengths of the choices in characters, and in bytes of UTF-8.
    pub(super) lengths: Vec<(usize, usize)>,
    /// Right answers as lm-eval compares them with positions; may be negative.
    pub(super) gold: Vec<i64>,
    /// Labels of `mc2_targets`.
    pub(super) labels: Vec<bool>,
    /// Words and bytes of a whole text.
    pub(super) words: usize,
    pub(super) bytes: usize,
}

/// The first file of the documents of `task`, their questions, and the data of their metrics.
///
/// # Errors
/// As [`PlannedTask::questions`](super::PlannedTask::questions).
pub(super) fn questions(
    task: &Definition,
    num_fewshot: usize,
    data: &Path,
    options: &QuestionOptions,
) -> Result<(PathBuf, Vec<(Question, Scoring)>)> {
    if options.limit == Some(0) {
        return Err(Error::at_least("limit", 1, 0));
    }
    let prompts = Prompts::new(task)?;
    let split = data_files::read(data, task, task.split(), options.limit)?;
    let path = split.path.clone();
    let documents = placed(split);
    let pool = match num_fewshot {
        0 => Vec::new(),
        _ => pool(task, data)?,
    };
    let mut builder = Builder {
        task,
        prompts: &prompts,
        examples: Examples::new(
            &prompts,
            pool,
            task.fewshot.sampler,
            options.seed,
            num_fewshot,
            // As lm-eval, also if both are absent.
            task.fewshot.split == task.test_split,
        ),
        is_input: false,
    };
    if let Some(first) = documents.first() {
        builder.is_input = builder.has_choices()
            && matches!(prompts.text(Role::Question, first)?, Text::Choice(_));
    }
    let questions = documents.iter().enumerate();
    let questions = questions.map(|(number, document)| builder.question(number, document));
    Ok((path, questions.collect::<Result<_>>()?))
}

/// Documents to draw examples from: the split of examples, else training, validation and test.
fn pool(task: &Definition, data: &Path) -> Result<Vec<Placed>> {
    let split = match (&task.fewshot.split, &task.fewshot.samples) {
        (Some(split), _) => split,
        (None, Some(samples)) => {
            let rows = samples
                .iter()
                .filter_map(|sample| sample.as_object().cloned());
            return Ok(placed(Split {
                path: task.source.clone(),
                rows: rows.collect(),
            }));
        }
        (None, None) => match task
            .training_split
            .as_ref()
            .or(task.validation_split.as_ref())
        {
            Some(split) => split,
            None => task.split(),
        },
    };
    data_files::read(data, task, split, None).map(placed)
}

fn placed(split: Split) -> Vec<Placed> {
    let path: Arc<Path> = split.path.into();
    let rows = split.rows.into_iter().enumerate();
    rows.map(|(number, columns)| Placed {
        document: Document::new(columns),
        path: Arc::clone(&path),
        row: number + 1,
    })
    .collect()
}

struct Builder<'a> {
    task: &'a Definition,
    prompts: &'a Prompts,
    examples: Examples<'a>,
    /// True if choices are contexts, as in WinoGrande.
    is_input: bool,
}

impl Builder<'_> {
    fn has_choices(&self) -> bool {
        self.task.output_type == OutputType::MultipleChoice
    }

    fn question(&mut self, number: usize, document: &Placed) -> Result<(Question, Scoring)> {
        let mut prefix = self.prompts.description(document)?;
        prefix.push_str(&self.examples.next(document, self.is_input)?);
        let text = self.prompts.text(Role::Question, document)?;
        let target = self.prompts.target(Role::Question, document)?;
        let choices = self
            .prompts
            .choices(Role::Question, document)?
            .unwrap_or_default();
        let lengths = choices
            .iter()
            .map(|choice| (choice.chars().count(), choice.len()));
        let mut scoring = Scoring {
            lengths: lengths.collect(),
            gold: Vec::new(),
            labels: Vec::new(),
            words: 0,
            bytes: 0,
        };
        let requests = self.requests(&prefix, (text, target), &choices, document, &mut scoring)?;
        self.check(document, &requests, &mut scoring)?;
        let count = i64::try_from(scoring.lengths.len()).unwrap_or(i64::MAX);
        let gold = scoring
            .gold
            .iter()
            .filter(|&&gold| (0..count).contains(&gold));
        let gold = gold
            .filter_map(|&gold| usize::try_from(gold).ok())
            .collect();
        let question = Question {
            document: number,
            requests,
            gold: if self.has_choices() {
                Gold::Choices(gold)
            } else {
                Gold::None
            },
        };
        Ok((question, scoring))
    }

    /// The requests of a document; its right answers and lengths go into `scoring`.
    fn requests(
        &self,
        prefix: &str,
        (text, target): (Text, Target),
        choices: &[String],
        document: &Placed,
        scoring: &mut Scoring,
    ) -> Result<Vec<ScoreRequest>> {
        let fault = |key: &str, problem: &str| self.prompts.fault(key, document, problem.into());
        let delimiter = &self.task.question.target_delimiter;
        Ok(match (self.task.output_type, text) {
            (OutputType::MultipleChoice, Text::Choice(gold)) if self.is_input => {
                let Some(target) = written(&target) else {
                    return Err(fault("doc_to_target", "expected text"));
                };
                scoring.gold = vec![gold];
                let contexts = choices.iter().map(|choice| ScoreRequest {
                    context: format!("{prefix}{choice}").into(),
                    continuation: format!("{delimiter}{target}"),
                });
                contexts.collect()
            }
            (OutputType::MultipleChoice, Text::Text(text)) if !self.is_input => {
                scoring.gold = self.gold(&target, choices, document)?;
                let context: Arc<str> = format!("{prefix}{text}").into();
                let continuations = choices.iter().map(|choice| ScoreRequest {
                    context: Arc::clone(&context),
                    continuation: format!("{delimiter}{choice}"),
                });
                continuations.collect()
            }
            (OutputType::MultipleChoice, _) => {
                let problem = "expected text for all documents, or numbers of choices for all";
                return Err(fault("doc_to_text", problem));
            }
            (OutputType::Loglikelihood, Text::Text(text)) => {
                let Target::Text(target) = target else {
                    return Err(fault("doc_to_target", "expected text"));
                };
                vec![ScoreRequest {
                    context: format!("{prefix}{text}").into(),
                    continuation: target,
                }]
            }
            (OutputType::LoglikelihoodRolling, _) => {
                let Target::Text(target) = target else {
                    return Err(fault("doc_to_target", "expected text"));
                };
                scoring.words = words(&target);
                scoring.bytes = target.len();
                vec![ScoreRequest {
                    context: Arc::default(),
                    continuation: target,
                }]
            }
            (OutputType::Loglikelihood, Text::Choice(_)) => {
                return Err(fault("doc_to_text", "expected text"));
            }
        })
    }

    /// The right choices. A label that is no choice is none.
    fn gold(&self, target: &Target, choices: &[String], document: &Placed) -> Result<Vec<i64>> {
        let count = i64::try_from(choices.len()).unwrap_or(i64::MAX);
        Ok(match target {
            Target::Choice(number) => {
                let gold = Some(*number).filter(|number| *number < count);
                gold.into_iter().collect()
            }
            Target::Text(text) => {
                let at = choices.iter().position(|choice| choice == text);
                if at.is_none() {
                    self.prompts.check_target(document)?;
                }
                let at = at.and_then(|at| i64::try_from(at).ok());
                at.into_iter().collect()
            }
            Target::List(values) => {
                let numbers = values.iter().map(|value| {
                    value.as_i64().ok_or_else(|| {
                        let problem = format!("expected numbers of choices, found {value}");
                        self.prompts.fault("doc_to_target", document, problem)
                    })
                });
                let numbers: Vec<i64> = numbers.collect::<Result<_>>()?;
                numbers
                    .into_iter()
                    .filter(|number| *number < count)
                    .collect()
            }
        })
    }

    /// Checks the requirements of `process_results`.
    fn check(
        &self,
        document: &Placed,
        requests: &[ScoreRequest],
        scoring: &mut Scoring,
    ) -> Result<()> {
        let fault = |problem: String| self.prompts.fault("process_results", document, problem);
        let count = requests.len();
        match self.task.process_results {
            ProcessResults::Standard => Ok(()),
            ProcessResults::CrowsPairs if count == 2 => Ok(()),
            ProcessResults::CrowsPairs => {
                Err(fault(format!("expected two sentences, found {count}")))
            }
            ProcessResults::TruthfulqaMc2 => {
                let labels = document.document.columns.get("mc2_targets");
                let labels = labels.and_then(|targets| targets.get("labels"));
                let labels = labels.and_then(Value::as_array).map(Vec::as_slice);
                let labels = labels.unwrap_or_default();
                if labels.len() != count {
                    let found = labels.len();
                    let expected = "labels in `mc2_targets.labels`";
                    return Err(fault(format!("expected {count} {expected}, found {found}")));
                }
                scoring.labels = labels
                    .iter()
                    .map(|label| label.as_i64() == Some(1))
                    .collect();
                Ok(())
            }
        }
    }
}

/// A target as Python formats it; `None` for a list.
fn written(target: &Target) -> Option<String> {
    match target {
        Target::Text(text) => Some(text.clone()),
        Target::Choice(number) => Some(number.to_string()),
        Target::List(_) => None,
    }
}

/// Number of words, as `len(re.split(r"\s+", text))`.
fn words(text: &str) -> usize {
    let mut count = 1;
    let mut is_in_space = false;
    for character in text.chars() {
        let is_space = super::python_text::is_space(character);
        count += usize::from(is_space && !is_in_space);
        is_in_space = is_space;
    }
    count
}
