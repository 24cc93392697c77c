//! Questions: the requests of a document.

use std::path::{Path, PathBuf};

use super::{
    build::Scoring,
    metric::{MetricSpec, OutputType, ProcessResults},
    result::{Outcome, TaskResult},
    scores,
};
use crate::{
    error::{Error, Result},
    evaluate::ScoreRequest,
};

/// Options for making questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionOptions {
    /// Number of documents, the first ones of the split, at least 1; `None` for all.
    pub limit: Option<usize>,
    /// Seed for the choice of examples. Default 1234, as lm-eval's.
    pub seed: u64,
}

impl Default for QuestionOptions {
    fn default() -> Self {
        Self {
            limit: None,
            seed: 1234,
        }
    }
}

/// The scoring that a question needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Log-likelihoods of continuations after their contexts.
    Continuations,
    /// The log-likelihood of a whole text (lm-eval's `loglikelihood_rolling`), in windows of the
    /// model's context. The context is empty.
    Text,
}

/// The right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gold {
    /// Positions of the right choices. Empty if the document's label is not among the choices:
    /// the question then counts as wrong.
    Choices(Vec<usize>),
    /// The task has no choices.
    None,
}

/// A question: a document's requests and its right answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Position of the document in its split.
    pub document: usize,
    /// Texts to score, one per choice.
    pub requests: Vec<ScoreRequest>,
    /// The right answer.
    pub gold: Gold,
}

/// The questions of a task.
#[derive(Debug, Clone)]
pub struct Questions {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) version: String,
    pub(super) num_fewshot: usize,
    pub(super) output_type: OutputType,
    pub(super) process_results: ProcessResults,
    pub(super) metrics: Vec<MetricSpec>,
    pub(super) questions: Vec<Question>,
    pub(super) scoring: Vec<Scoring>,
}

impl Questions {
    /// The scoring that the questions need.
    pub fn kind(&self) -> RequestKind {
        match self.output_type {
            OutputType::LoglikelihoodRolling => RequestKind::Text,
            OutputType::MultipleChoice | OutputType::Loglikelihood => RequestKind::Continuations,
        }
    }

    /// The first file of the documents.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The questions, in the order of the documents.
    pub fn iter(&self) -> std::slice::Iter<'_, Question> {
        self.questions.iter()
    }

    /// Number of questions, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// The metrics of the task, from the outcomes of each question's requests.
    ///
    /// # Errors
    /// [`Error::Option`] if the number of outcomes differs from the number of requests.
    pub fn result(&self, outcomes: &[Vec<Outcome>]) -> Result<TaskResult> {
        let expected = self
            .questions
            .iter()
            .map(|question| question.requests.len());
        if !expected.eq(outcomes.iter().map(Vec::len)) {
            let problem = format!("expected one per request of {} questions", self.len());
            return Err(Error::option("outcomes", problem));
        }
        let scored = self.scoring.iter().zip(outcomes);
        let scored: Vec<_> = scored
            .map(|(scoring, each)| (scoring, each.as_slice()))
            .collect();
        let metrics = self.metrics.iter();
        let requests = || outcomes.iter().flatten();
        Ok(TaskResult {
            name: self.name.clone(),
            version: self.version.clone(),
            num_fewshot: self.num_fewshot,
            documents: self.len(),
            requests: requests().count(),
            truncated: requests().filter(|one| one.truncated > 0).count(),
            metrics: metrics
                .map(|&spec| scores::metric(spec, self.process_results, &scored))
                .collect(),
        })
    }
}

impl<'a> IntoIterator for &'a Questions {
    type Item = &'a Question;
    type IntoIter = std::slice::Iter<'a, Question>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
