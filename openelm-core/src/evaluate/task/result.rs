//! Results of tasks and groups.

use crate::evaluate::LogLikelihood;

/// The outcome of scoring one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Log-likelihood, in nats.
    pub sum: f64,
    /// True if each token is the most likely one.
    pub is_greedy: bool,
    /// Number of tokens that the context lost because it was too long for the model.
    pub truncated: usize,
}

impl From<&LogLikelihood> for Outcome {
    fn from(value: &LogLikelihood) -> Self {
        Self {
            sum: value.sum,
            is_greedy: value.is_greedy,
            truncated: value.truncated,
        }
    }
}

/// A metric over documents or tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricResult {
    /// Name, as in lm-eval: `acc`, `acc_norm`, …
    pub name: String,
    /// Value, for example the share of right answers.
    pub value: f64,
    /// Standard error; `None` for one document, and for perplexities.
    pub stderr: Option<f64>,
    /// True if a higher value is better.
    pub higher_is_better: bool,
}

/// A metric with its value for each document.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValue {
    /// The metric over all documents.
    pub metric: MetricResult,
    /// The value of each document, in the order of the questions. Empty for perplexities.
    pub values: Vec<f64>,
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Name of the task.
    pub name: String,
    /// Version of the definition (`metadata.version`); empty if it has none.
    pub version: String,
    /// Number of examples before each question.
    pub num_fewshot: usize,
    /// Number of questions.
    pub documents: usize,
    /// Number of requests.
    pub requests: usize,
    /// Number of requests whose context was too long for the model and lost its beginning.
    pub truncated: usize,
    /// Metrics in the order of the definition.
    pub metrics: Vec<MetricValue>,
}

impl TaskResult {
    /// The metric with this name.
    pub fn metric(&self, name: &str) -> Option<&MetricResult> {
        let metrics = self.metrics.iter().map(|value| &value.metric);
        metrics.into_iter().find(|metric| metric.name == name)
    }
}

/// The averages of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupResult {
    /// Name of the group.
    pub name: String,
    /// Number of questions of all its tasks.
    pub documents: usize,
    /// Averages over tasks. `average` is the mean of the metrics that the paper reports, one per
    /// task.
    pub metrics: Vec<MetricResult>,
}
