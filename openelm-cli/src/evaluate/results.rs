//! `results.json`, in lm-eval's shape.

use std::collections::BTreeMap;

use openelm_core::evaluate::task::{GroupResult, MetricResult, Plan, TaskResult};
use serde_json::{Map, Value, json};

use super::tasks::keys;

/// The members of `results.json` that describe the tasks.
pub(super) fn tasks_json(
    plan: &Plan,
    tasks: &[TaskResult],
    groups: &[GroupResult],
) -> Map<String, Value> {
    let keys = keys(plan);
    let each = || keys.iter().zip(tasks);
    let mut json = Map::new();
    let mut results: Map<String, Value> = each()
        .map(|(key, task)| {
            let metrics = task.metrics.iter().map(|metric| &metric.metric);
            (key.clone(), metrics_json(key, task.documents, metrics))
        })
        .collect();
    let group_json: Map<String, Value> = groups
        .iter()
        .map(|group| {
            let metrics = metrics_json(&group.name, group.documents, &group.metrics);
            (group.name.clone(), metrics)
        })
        .collect();
    results.extend(group_json.clone());
    json.insert("results".into(), results.into());
    if !groups.is_empty() {
        json.insert("groups".into(), group_json.into());
    }
    let subtasks: Map<String, Value> = plan
        .groups
        .iter()
        .map(|group| {
            let names: Vec<_> = group.tasks.iter().filter_map(|&at| keys.get(at)).collect();
            (group.name.clone(), json!(names))
        })
        .collect();
    json.insert("group_subtasks".into(), subtasks.into());
    let mut by_task = |name: &str, value: &dyn Fn(&TaskResult) -> Value| {
        let values: Map<_, _> = each()
            .map(|(key, task)| (key.clone(), value(task)))
            .collect();
        json.insert(name.into(), values.into());
    };
    by_task("versions", &|task| json!(task.version));
    by_task("n-shot", &|task| json!(task.num_fewshot));
    by_task("higher_is_better", &|task| {
        let metrics = task.metrics.iter().map(|metric| &metric.metric);
        let better: BTreeMap<_, _> = metrics
            .map(|metric| (metric.name.clone(), metric.higher_is_better))
            .collect();
        json!(better)
    });
    by_task("truncated", &|task| json!(task.truncated));
    by_task("n-samples", &|task| json!({ "effective": task.documents }));
    json
}

fn metrics_json<'m>(
    key: &str,
    documents: usize,
    metrics: impl IntoIterator<Item = &'m MetricResult>,
) -> Value {
    let mut json = Map::new();
    json.insert("name".into(), json!(key));
    json.insert("alias".into(), json!(key));
    json.insert("sample_len".into(), json!(documents));
    for metric in metrics {
        json.insert(format!("{},none", metric.name), json!(metric.value));
        let stderr = match metric.stderr {
            Some(stderr) => json!(stderr),
            None => json!("N/A"),
        };
        json.insert(format!("{}_stderr,none", metric.name), stderr);
    }
    json.into()
}
