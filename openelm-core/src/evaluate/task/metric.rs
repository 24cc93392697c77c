//! Metrics, and the reading of their keys.

use serde_json::Value;

use super::keys::Keys;
use crate::error::Result;

/// The requests of a task (`output_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputType {
    /// A continuation for each choice.
    MultipleChoice,
    /// The target as a continuation.
    Loglikelihood,
    /// The target as a whole text.
    LoglikelihoodRolling,
}

/// The values of a document that differ from `output_type`'s (`process_results`), by the names of
/// built-in rules in place of lm-eval's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessResults {
    /// None.
    Standard,
    /// `truthfulqa_mc2`: the share of probability of the choices whose label in
    /// `mc2_targets.labels` is 1.
    TruthfulqaMc2,
    /// `crows_pairs`: difference and order of the log-likelihoods of two sentences.
    CrowsPairs,
}

/// A metric of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetricSpec {
    pub(super) metric: Metric,
    pub(super) higher_is_better: bool,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    /// The most likely choice is right.
    Acc,
    /// As `acc`, by log-likelihood per character.
    AccNorm,
    /// As `acc`, by log-likelihood per byte of UTF-8.
    AccBytes,
    /// The right choice is the greedy continuation.
    ExactMatch,
    /// `exp(-mean)` of the targets' log-likelihoods.
    Perplexity,
    /// Perplexity per word.
    WordPerplexity,
    /// Perplexity per byte of UTF-8.
    BytePerplexity,
    /// Bits per byte of UTF-8.
    BitsPerByte,
    /// Difference of two sentences' log-likelihoods.
    LikelihoodDiff,
    /// The first sentence is more likely.
    PctStereotype,
}

/// The value of a metric over documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregation {
    Mean,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
}

impl OutputType {
    pub(super) fn new(keys: &mut Keys<'_>) -> Result<Self> {
        const KEY: &str = "output_type";
        match keys.text(KEY)?.as_deref() {
            Some("multiple_choice") => Ok(Self::MultipleChoice),
            Some("loglikelihood") => Ok(Self::Loglikelihood),
            Some("loglikelihood_rolling") => Ok(Self::LoglikelihoodRolling),
            found => {
                let found = found.unwrap_or("generate_until, the default");
                Err(keys.fault(
                    KEY,
                    format!(
                        "expected multiple_choice, loglikelihood or loglikelihood_rolling, found \
                         {found}"
                    ),
                ))
            }
        }
    }
}

impl ProcessResults {
    pub(super) fn new(keys: &mut Keys<'_>) -> Result<Self> {
        const KEY: &str = "process_results";
        match keys.text(KEY)?.as_deref() {
            None => Ok(Self::Standard),
            Some("truthfulqa_mc2") => Ok(Self::TruthfulqaMc2),
            Some("crows_pairs") => Ok(Self::CrowsPairs),
            Some(found) => {
                let problem = format!("expected truthfulqa_mc2 or crows_pairs, found {found}");
                Err(keys.fault(KEY, problem))
            }
        }
    }
}

impl MetricSpec {
    /// `metric_list`, or the metrics of `output` if it is absent.
    pub(super) fn list(
        keys: &mut Keys<'_>,
        output: OutputType,
        process: ProcessResults,
    ) -> Result<Vec<Self>> {
        const KEY: &str = "metric_list";
        let known = Metric::of(output, process);
        let Some(items) = keys.list(KEY) else {
            let defaults = known.iter().filter(|metric| metric.is_default());
            return Ok(defaults.map(|&metric| Self::from(metric)).collect());
        };
        let mut specs = Vec::new();
        for item in items {
            let mut entry = keys.nested(KEY, item)?;
            let name = (entry.text("metric")?).ok_or_else(|| entry.missing("metric"))?;
            let Some(&metric) = known.iter().find(|metric| metric.name() == name) else {
                let names: Vec<_> = known.iter().map(|metric| metric.name()).collect();
                let names = names.join(", ");
                let problem = format!("expected one of {names}, found `{name}`");
                return Err(entry.fault("metric", problem));
            };
            let expected = metric.aggregation().name();
            if let Some(found) = entry.take("aggregation")
                && found != expected
            {
                return Err(entry.wrong("aggregation", expected, &found));
            }
            if let Some(found) = entry.take("hf_evaluate")
                && found != Value::Bool(false)
            {
                return Err(entry.wrong("hf_evaluate", "false", &found));
            }
            // For averages of tasks; changes nothing here.
            entry.ignore(&["weight_by_size"]);
            let default = Self::from(metric);
            let higher_is_better = entry.flag("higher_is_better")?;
            specs.push(Self {
                higher_is_better: higher_is_better.unwrap_or(default.higher_is_better),
                metric,
            });
            entry.finish("metric, aggregation, higher_is_better")?;
        }
        if specs.is_empty() {
            return Err(keys.fault(KEY, "expected at least one metric"));
        }
        Ok(specs)
    }
}

impl From<Metric> for MetricSpec {
    fn from(metric: Metric) -> Self {
        use Metric::{Acc, AccBytes, AccNorm, ExactMatch};
        Self {
            metric,
            higher_is_better: matches!(metric, Acc | AccNorm | AccBytes | ExactMatch),
        }
    }
}

impl Metric {
    /// The metrics that a task can have.
    fn of(output: OutputType, process: ProcessResults) -> &'static [Self] {
        match (process, output) {
            (ProcessResults::TruthfulqaMc2, _) => &[Self::Acc],
            (ProcessResults::CrowsPairs, _) => &[Self::LikelihoodDiff, Self::PctStereotype],
            (_, OutputType::MultipleChoice) => {
                &[Self::Acc, Self::AccNorm, Self::AccBytes, Self::ExactMatch]
            }
            (_, OutputType::Loglikelihood) => &[Self::Perplexity, Self::Acc],
            (_, OutputType::LoglikelihoodRolling) => &[
                Self::WordPerplexity,
                Self::BytePerplexity,
                Self::BitsPerByte,
            ],
        }
    }

    fn is_default(self) -> bool {
        !matches!(self, Self::AccBytes | Self::ExactMatch)
    }

    /// Name, as in lm-eval.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::ExactMatch => "exact_match",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
            Self::LikelihoodDiff => "likelihood_diff",
            Self::PctStereotype => "pct_stereotype",
        }
    }

    pub(super) fn aggregation(self) -> Aggregation {
        match self {
            Self::Perplexity => Aggregation::Perplexity,
            Self::WordPerplexity | Self::BytePerplexity => Aggregation::WeightedPerplexity,
            Self::BitsPerByte => Aggregation::BitsPerByte,
            _ => Aggregation::Mean,
        }
    }
}

impl Aggregation {
    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Perplexity => "perplexity",
            Self::WeightedPerplexity => "weighted_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }
}
