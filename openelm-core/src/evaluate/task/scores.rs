//! Values of metrics, from the outcomes of a document's requests.

use super::{
    build::Scoring,
    examples::item,
    metric::{Aggregation, Metric, MetricSpec, ProcessResults},
    result::{MetricResult, MetricValue, Outcome},
};

/// The metric over all documents. `scored` has the outcomes of each document.
pub(super) fn metric(
    spec: MetricSpec,
    process: ProcessResults,
    scored: &[(&Scoring, &[Outcome])],
) -> MetricValue {
    let sums = || {
        let sums = scored.iter();
        sums.map(|(_, outcomes)| outcomes.first().map_or(f64::NAN, |outcome| outcome.sum))
    };
    let weights = || {
        scored.iter().map(|(scoring, _)| match spec.metric {
            Metric::WordPerplexity => scoring.words as f64,
            _ => scoring.bytes as f64,
        })
    };
    let weighted = || sums().sum::<f64>() / weights().sum::<f64>();
    let mut values = Vec::new();
    let (value, stderr) = match spec.metric.aggregation() {
        Aggregation::Mean => {
            let each = scored.iter();
            values = each
                .map(|(scoring, outcomes)| value(spec.metric, process, scoring, outcomes))
                .collect();
            (mean(&values), stderr(&values))
        }
        Aggregation::Perplexity => ((-sums().sum::<f64>() / scored.len() as f64).exp(), None),
        Aggregation::WeightedPerplexity => ((-weighted()).exp(), None),
        Aggregation::BitsPerByte => (-weighted() / 2_f64.ln(), None),
    };
    MetricValue {
        metric: MetricResult {
            name: spec.metric.name().to_owned(),
            value,
            stderr,
            higher_is_better: spec.higher_is_better,
        },
        values,
    }
}

fn value(metric: Metric, process: ProcessResults, scoring: &Scoring, outcomes: &[Outcome]) -> f64 {
    if process == ProcessResults::TruthfulqaMc2 {
        return true_share(&scoring.labels, outcomes);
    }
    let is_right = |scores: &mut dyn Iterator<Item = f64>| {
        let best = first_maximum(scores);
        let is_gold = |gold: &i64| usize::try_from(*gold).is_ok_and(|gold| best == Some(gold));
        f64::from(u8::from(scoring.gold.iter().any(is_gold)))
    };
    let lengths = scoring.lengths.iter();
    match metric {
        Metric::AccNorm => is_right(
            &mut (outcomes.iter().zip(lengths))
                .map(|(outcome, &(characters, _))| outcome.sum / characters as f64),
        ),
        Metric::AccBytes => is_right(
            &mut (outcomes.iter().zip(lengths))
                .map(|(outcome, &(_, bytes))| outcome.sum / bytes as f64),
        ),
        // A task without choices: the target is the greedy continuation.
        Metric::Acc if scoring.lengths.is_empty() => f64::from(u8::from(
            outcomes.first().is_some_and(|outcome| outcome.is_greedy),
        )),
        Metric::Acc => is_right(&mut outcomes.iter().map(|outcome| outcome.sum)),
        Metric::ExactMatch => {
            let is_greedy = |gold: &i64| item(outcomes, *gold).is_some_and(|o| o.is_greedy);
            f64::from(u8::from(scoring.gold.iter().any(is_greedy)))
        }
        _ => match outcomes {
            [first, second] if metric == Metric::LikelihoodDiff => (first.sum - second.sum).abs(),
            [first, second] if metric == Metric::PctStereotype => {
                f64::from(u8::from(first.sum > second.sum))
            }
            _ => f64::NAN,
        },
    }
}

/// The share of probability of the choices with a true label.
fn true_share(labels: &[bool], outcomes: &[Outcome]) -> f64 {
    let probabilities: Vec<f64> = outcomes.iter().map(|outcome| outcome.sum.exp()).collect();
    let total: f64 = probabilities.iter().sum();
    let shares = probabilities.iter().zip(labels);
    shares
        .filter(|(_, label)| **label)
        .map(|(probability, _)| probability / total)
        .sum()
}

/// Position of the first maximum, or of the first value that is not a number, as NumPy's `argmax`.
fn first_maximum(values: &mut dyn Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (position, value) in values.enumerate() {
        if value.is_nan() {
            return Some(position);
        }
        if best.is_none_or(|(_, highest)| value > highest) {
            best = Some((position, value));
        }
    }
    best.map(|(position, _)| position)
}

/// The mean of `values`.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of the mean of `values`, by the standard deviation of the sample; `None` for
/// one value.
pub(super) fn stderr(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let count = values.len() as f64;
    Some((squares / (count - 1.0)).sqrt() / count.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(sums: &[f64]) -> Vec<Outcome> {
        let outcome = |&sum| Outcome {
            sum,
            is_greedy: false,
            truncated: 0,
        };
        sums.iter().map(outcome).collect()
    }

    fn scoring(gold: &[i64], lengths: &[(usize, usize)]) -> Scoring {
        Scoring {
            lengths: lengths.to_vec(),
            gold: gold.to_vec(),
            labels: Vec::new(),
            words: 0,
            bytes: 0,
        }
    }

    #[test]
    fn ties_choose_the_first_as_in_numpy() {
        let lengths = [(1, 1), (1, 2), (2, 2)];
        for (gold, sums, expected) in [
            (0, [-1.0, -1.0, -2.0], [1.0, 1.0, 0.0]),
            (1, [-1.0, -1.0, -2.0], [0.0, 0.0, 1.0]),
            (1, [-2.0, f64::NAN, -1.0], [1.0, 1.0, 1.0]),
            (0, [f64::NEG_INFINITY; 3], [1.0, 1.0, 1.0]),
            (-1, [-3.0, -2.0, -1.0], [0.0, 0.0, 0.0]),
        ] {
            let scoring = scoring(&[gold], &lengths);
            let sums = outcomes(&sums);
            let metrics = [Metric::Acc, Metric::AccNorm, Metric::AccBytes];
            let found = metrics.map(|m| value(m, ProcessResults::Standard, &scoring, &sums));
            assert_eq!(found, expected, "{gold} {sums:?}");
        }
    }

    #[test]
    fn one_value_has_no_standard_error() {
        assert_eq!(stderr(&[1.0]), None);
        assert_eq!(
            stderr(&[0.0, 1.0, 1.0, 0.0]),
            Some((1.0_f64 / 3.0).sqrt() / 2.0)
        );
    }
}
