//! `comparison.svg` and `comparison.png`: scores by task with error bars.

use std::path::Path;

use openelm_core::{
    evaluate::task::{Gold, Questions},
    output::write_file,
};

use super::{Scores, Session, compare::paired, samples::wrong};
use crate::{
    chart::{Chart, Comparison, Row},
    error::Error,
};

/// Half of a 95 % confidence interval in standard errors.
const HALF: f64 = 1.96;

/// Draws the accuracies of both models; nothing if no task has one.
pub(super) fn draw(
    folder: &Path,
    session: &Session<'_>,
    scores: &Scores,
    against: Option<&Scores>,
) -> Result<(), Error> {
    // The model that is compared with comes first, so that its colour is that of a baseline.
    let models: Vec<_> = against.into_iter().chain([scores]).collect();
    let mut rows = Vec::new();
    for (index, task_questions) in session.tasks_questions.iter().enumerate() {
        let Some(task) = scores.tasks.get(index) else {
            continue;
        };
        for (place, metric) in task.metrics.iter().enumerate() {
            let name = metric.metric.name.as_str();
            if !["acc", "acc_norm", "pct_stereotype", "exact_match"].contains(&name) {
                continue;
            }
            let other = against.and_then(|other| other.tasks.get(index)?.metrics.get(place));
            let difference = match other {
                Some(other) => paired(other, metric)?,
                None => None,
            };
            let metric = |model: &&Scores| {
                let metric = &model.tasks.get(index)?.metrics.get(place)?.metric;
                Some((metric.value, metric.stderr.unwrap_or(0.0) * HALF))
            };
            rows.push(Row {
                label: format!("{}, {name} ({}-shot)", task_questions.key, task.num_fewshot),
                scores: models.iter().filter_map(metric).collect(),
                chance: chance(&task_questions.questions).filter(|_| name != "pct_stereotype"),
                difference: difference.map(|paired| (paired.difference, paired.stderr * HALF)),
            });
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = models.iter().map(|model| model.name.clone()).collect();
    let chart = Comparison {
        title: format!("{} by task", names.join(" and ")),
        models: names,
        rows,
    };
    let svg = chart.svg().map(String::into_bytes);
    for (kind, picture) in [("svg", svg), ("png", chart.png())] {
        let path = folder.join("comparison").with_extension(kind);
        let picture = picture.map_err(|problem| wrong(&path, problem))?;
        write_file(&path, picture)?;
    }
    Ok(())
}

/// The mean accuracy of random answers.
fn chance(questions: &Questions) -> Option<f64> {
    let mut sum = 0.0;
    for question in questions.iter() {
        let Gold::Choices(right) = &question.gold else {
            return None;
        };
        sum += right.len() as f64 / question.requests.len() as f64;
    }
    Some(sum / questions.len() as f64)
}
