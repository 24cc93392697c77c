//! The examples before a question, as lm-eval's samplers choose them.

use std::collections::HashMap;

use super::{
    definition::Sampler,
    prompt::{Placed, Prompts, Role, Target, Text},
    python_random::PythonRandom,
};
use crate::error::{Error, Result};

/// Documents to draw examples from.
pub(super) struct Examples<'a> {
    prompts: &'a Prompts,
    pool: Vec<Placed>,
    sampler: Sampler,
    random: PythonRandom,
    count: usize,
    /// True if the evaluated document is no example for itself.
    excludes: bool,
    /// Texts of documents, by position in the pool.
    texts: HashMap<usize, String>,
}

impl<'a> Examples<'a> {
    pub(super) fn new(
        prompts: &'a Prompts,
        pool: Vec<Placed>,
        sampler: Sampler,
        seed: u64,
        count: usize,
        excludes: bool,
    ) -> Self {
        Self {
            prompts,
            pool,
            sampler,
            random: PythonRandom::new(seed),
            count,
            excludes,
            texts: HashMap::new(),
        }
    }

    /// The text of the next question's examples. `are_inputs`: choices are contexts.
    ///
    /// # Errors
    /// [`Error::Option`] if the pool is too small; the errors of the templates.
    pub(super) fn next(&mut self, question: &Placed, are_inputs: bool) -> Result<String> {
        let mut text = String::new();
        for position in self.draw(question)? {
            if !self.texts.contains_key(&position) {
                let example = self.text(position, are_inputs)?;
                self.texts.insert(position, example);
            }
            if let Some(example) = self.texts.get(&position) {
                text.push_str(example);
            }
        }
        Ok(text)
    }

    /// Positions of the examples of `question`.
    fn draw(&mut self, question: &Placed) -> Result<Vec<usize>> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let columns = &question.document.columns;
        let is_other = |position: &usize| {
            let document = self.pool.get(*position);
            document.is_some_and(|document| document.document.columns != *columns)
        };
        let excludes = self.excludes && !columns.is_empty();
        let drawn: Vec<usize> = match (self.sampler, excludes) {
            (Sampler::FirstN, true) => (0..self.pool.len())
                .filter(is_other)
                .take(self.count)
                .collect(),
            (Sampler::FirstN, false) => (0..self.pool.len().min(self.count)).collect(),
            (Sampler::Default, false) => {
                let drawn = self.random.sample(self.pool.len(), self.count);
                drawn.ok_or_else(|| self.too_few(self.count))?
            }
            (Sampler::Default, true) => {
                let drawn = self.random.sample(self.pool.len(), self.count + 1);
                let drawn = drawn.ok_or_else(|| self.too_few(self.count + 1))?;
                let mut others: Vec<usize> = drawn.into_iter().filter(is_other).collect();
                others.truncate(self.count);
                if others.len() < self.count {
                    let pool: Vec<usize> = (0..self.pool.len()).filter(is_other).collect();
                    let again = self.random.sample(pool.len(), self.count);
                    let again = again.ok_or_else(|| self.too_few(self.count))?;
                    others = again
                        .into_iter()
                        .filter_map(|at| pool.get(at).copied())
                        .collect();
                }
                others
            }
        };
        if drawn.len() < self.count {
            return Err(self.too_few(self.count));
        }
        Ok(drawn)
    }

    fn too_few(&self, needed: usize) -> Error {
        let place = match self.pool.first() {
            Some(document) => format!(" in {}", document.path.display()),
            None => String::new(),
        };
        Error::option(
            "num_fewshot",
            format!(
                "{} examples need {needed} documents; found {}{place}",
                self.count,
                self.pool.len()
            ),
        )
    }

    /// The text of an example with its answer.
    fn text(&self, position: usize, are_inputs: bool) -> Result<String> {
        let Some(document) = self.pool.get(position) else {
            return Err(self.too_few(self.count));
        };
        let prompts = self.prompts;
        let text = prompts.text(Role::Example, document)?;
        let choices = prompts.choices(Role::Example, document)?;
        let target = prompts.target(Role::Example, document)?;
        let fault = |key: &str, problem: &str| prompts.fault(key, document, problem.into());
        let choice = |number: i64| {
            let choices = choices.as_deref().unwrap_or_default();
            item(choices, number).cloned().ok_or_else(|| {
                let count = choices.len();
                prompts.fault(
                    "doc_to_target",
                    document,
                    format!("expected the number of a choice below {count}, found {number}"),
                )
            })
        };
        let (question, target_is_text) = match (text, are_inputs) {
            (Text::Choice(number), true) => (choice(number)?, true),
            (Text::Text(text), false) => (text, false),
            (Text::Choice(_), false) => return Err(fault("doc_to_text", "expected text")),
            (Text::Text(_), true) => {
                return Err(fault("doc_to_text", "expected the number of a choice"));
            }
        };
        let answer = match target {
            Target::Text(text) => text,
            Target::Choice(number) if !target_is_text => choice(number)?,
            Target::Choice(_) => return Err(fault("doc_to_target", "expected text")),
            Target::List(values) => match values.first() {
                Some(serde_json::Value::String(text)) => text.clone(),
                _ => {
                    return Err(fault(
                        "doc_to_target",
                        "expected a list that begins with text",
                    ));
                }
            },
        };
        // Without an answer there are no delimiters.
        if answer.is_empty() {
            return Ok(question);
        }
        let prompt = prompts.prompt(Role::Example);
        let (target, fewshot) = (&prompt.target_delimiter, &prompt.fewshot_delimiter);
        Ok(format!("{question}{target}{answer}{fewshot}"))
    }
}

/// The item at `number`; negative numbers count from the end, as in Python.
pub(super) fn item<T>(items: &[T], number: i64) -> Option<&T> {
    let at = match usize::try_from(number) {
        Ok(at) => at,
        Err(_) => items
            .len()
            .checked_sub(usize::try_from(number.unsigned_abs()).ok()?)?,
    };
    items.get(at)
}
