//! Rows of the table: scores of a model, beside those of another.

use openelm_core::evaluate::task::{MetricResult, MetricValue, PairedDifference, Plan};
use serde_json::{Map, Value, json};

use super::{Scores, table::Row, tasks::keys};
use crate::error::Error;

/// A row per task and metric, and per group and metric.
pub(super) fn rows(
    plan: &Plan,
    scores: &Scores,
    against: Option<&Scores>,
) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (index, (key, task)) in keys(plan).into_iter().zip(&scores.tasks).enumerate() {
        let other = against.and_then(|other| other.tasks.get(index));
        for (place, metric) in task.metrics.iter().enumerate() {
            let against = match other.and_then(|other| other.metrics.get(place)) {
                None => None,
                Some(other) => Some((other.metric.value, paired(other, metric)?)),
            };
            let shots = Some(task.num_fewshot);
            let number = Some(task.documents);
            rows.push(row(&key, shots, number, &metric.metric, against));
        }
    }
    for (index, group) in scores.groups.iter().enumerate() {
        let other = against.and_then(|other| other.groups.get(index));
        for (place, metric) in group.metrics.iter().enumerate() {
            let other = other.and_then(|other| other.metrics.get(place));
            let against = other.map(|other| (other.value, None));
            rows.push(row(&group.name, None, None, metric, against));
        }
    }
    Ok(rows)
}

/// The paired difference of a metric from another model's; `None` for a metric without a value per
/// document, or of one document.
pub(super) fn paired(
    against: &MetricValue,
    metric: &MetricValue,
) -> Result<Option<PairedDifference>, Error> {
    if against.values.len() < 2 {
        return Ok(None);
    }
    let paired = PairedDifference::new(&against.values, &metric.values)?;
    Ok(Some(paired))
}

fn row(
    name: &str,
    shots: Option<usize>,
    number: Option<usize>,
    metric: &MetricResult,
    against: Option<(f64, Option<PairedDifference>)>,
) -> Row {
    Row {
        name: name.to_owned(),
        shots,
        number,
        metric: metric.name.clone(),
        value: metric.value,
        stderr: metric.stderr,
        against,
    }
}

/// The member `comparison` of results.json: the differences of `rows`.
pub(super) fn comparison_json(against: &Scores, rows: &[Row]) -> Value {
    let mut differences = Map::new();
    for row in rows {
        let Some((value, paired)) = &row.against else {
            continue;
        };
        let mut difference = json!({
            "value": row.value,
            "against": value,
            "difference": row.value - value,
        });
        if let (Some(paired), Some(object)) = (paired, difference.as_object_mut()) {
            object.insert("stderr".into(), json!(paired.stderr));
            object.insert("low".into(), json!(paired.low));
            object.insert("high".into(), json!(paired.high));
        }
        let metrics = differences.entry(row.name.clone());
        if let Some(metrics) = metrics.or_insert_with(|| json!({})).as_object_mut() {
            metrics.insert(row.metric.clone(), difference);
        }
    }
    json!({ "against": against.about, "differences": differences })
}
