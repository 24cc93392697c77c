//! The tasks of an evaluation, and the groups that average them.

use std::{path::Path, sync::Arc};

use super::{
    build,
    definition::Definition,
    group::{AVERAGE, Aggregate},
    question::{QuestionOptions, Questions},
    result::{GroupResult, MetricResult, TaskResult},
};
use crate::error::{Error, Result};

/// Tasks to evaluate, each once, and the groups over them.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Tasks in the order of selection, each pair of task and number of examples once.
    pub tasks: Vec<PlannedTask>,
    /// Groups, each after the groups in it.
    pub groups: Vec<PlannedGroup>,
}

/// A task with its number of examples.
#[derive(Debug, Clone)]
pub struct PlannedTask {
    pub(super) definition: Arc<Definition>,
    pub(super) num_fewshot: usize,
}

/// A group of tasks whose metrics are averaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGroup {
    /// Name of the group.
    pub name: String,
    /// Positions of its tasks, those of its groups included, in [`Plan::tasks`].
    pub tasks: Vec<usize>,
    pub(super) members: Vec<(PlannedMember, Option<String>)>,
    pub(super) aggregates: Vec<Aggregate>,
}

/// A member of a group, by position in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlannedMember {
    Task(usize),
    Group(usize),
}

impl PlannedTask {
    /// Name of the task.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Number of examples before each question.
    pub fn num_fewshot(&self) -> usize {
        self.num_fewshot
    }

    /// Data set on the Hugging Face Hub, with its configuration; empty if the definition has none.
    pub fn dataset(&self) -> String {
        self.definition.dataset()
    }

    /// True if a question can be among its own examples: the definition names no split but that of
    /// the questions, and no `fewshot_split`, which would exclude the question. As in lm-eval.
    pub fn examples_can_repeat_question(&self) -> bool {
        let task = &self.definition;
        let splits = [
            &task.fewshot.split,
            &task.training_split,
            &task.validation_split,
        ];
        self.num_fewshot > 0
            && task.fewshot.samples.is_none()
            && splits.iter().all(|split| split.is_none())
    }

    /// Reads the task's documents below the folder `data` and makes its questions.
    ///
    /// The files of a split lie in the folder of the task's name (`arc_easy`), of the data set's
    /// name on the Hub (`allenai/ai2_arc`), of its last part (`ai2_arc`), or of its snapshot, if
    /// `data` is the Hub's cache; in it, in the folder of the configuration (`ARC-Easy`), in
    /// `data/`, in both, or in neither. The first folder that holds the split is used. A file is
    /// Parquet, lines of JSON (`.jsonl`) or an array (`.json`), and named after its split:
    /// `test.jsonl`, `test-00000-of-00001.parquet`, `test/0000.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] with all tried places if the data is missing; [`Error::Data`] if a
    /// file is malformed or lacks a column; [`Error::Config`] if a template fails on a document;
    /// [`Error::Option`] if there are too few documents for the examples.
    pub fn questions(&self, data: &Path, options: &QuestionOptions) -> Result<Questions> {
        let task = &self.definition;
        let (path, questions) = build::questions(task, self.num_fewshot, data, options)?;
        let (questions, scoring) = questions.into_iter().unzip();
        Ok(Questions {
            name: task.name.clone(),
            path,
            version: task.version.clone(),
            num_fewshot: self.num_fewshot,
            output_type: task.output_type,
            process_results: task.process_results,
            metrics: task.metrics.clone(),
            questions,
            scoring,
        })
    }
}

impl Plan {
    /// The averages of the groups, from the results of [`tasks`](Self::tasks) in their order.
    ///
    /// # Errors
    /// [`Error::Option`] if the number of results differs from the number of tasks.
    pub fn group_results(&self, results: &[TaskResult]) -> Result<Vec<GroupResult>> {
        if results.len() != self.tasks.len() {
            let (expected, found) = (self.tasks.len(), results.len());
            return Err(Error::option(
                "results",
                format!("expected {expected}, found {found}"),
            ));
        }
        let mut groups: Vec<GroupResult> = Vec::new();
        for group in &self.groups {
            let tasks: Vec<_> = group
                .tasks
                .iter()
                .filter_map(|&at| results.get(at))
                .collect();
            let metrics = group.aggregates.iter().filter_map(|aggregate| {
                let values = match aggregate.metric.as_str() {
                    AVERAGE => group.member_values(results, &groups)?,
                    metric => task_values(&tasks, metric),
                };
                averaged(aggregate, &values)
            });
            groups.push(GroupResult {
                name: group.name.clone(),
                documents: tasks.iter().map(|task| task.documents).sum(),
                metrics: metrics.collect(),
            });
        }
        Ok(groups)
    }
}

impl PlannedGroup {
    /// The metrics that the members have in the average; `None` if one is missing.
    fn member_values<'a>(
        &self,
        results: &'a [TaskResult],
        groups: &'a [GroupResult],
    ) -> Option<Vec<(&'a MetricResult, usize)>> {
        let members = self.members.iter();
        let values = members.map(|(member, metric)| {
            let metric = metric.as_deref()?;
            match *member {
                PlannedMember::Task(at) => {
                    let task = results.get(at)?;
                    Some((task.metric(metric)?, task.documents))
                }
                PlannedMember::Group(at) => {
                    let group = groups.get(at)?;
                    let found = group.metrics.iter().find(|found| found.name == metric)?;
                    Some((found, group.documents))
                }
            }
        });
        values.collect()
    }
}

/// The metric of each task that has it, with its number of questions.
fn task_values<'a>(tasks: &[&'a TaskResult], metric: &str) -> Vec<(&'a MetricResult, usize)> {
    let values = tasks
        .iter()
        .filter_map(|task| Some((task.metric(metric)?, task.documents)));
    values.collect()
}

/// The mean of `values`, and its standard error, as lm-eval's.
fn averaged(aggregate: &Aggregate, values: &[(&MetricResult, usize)]) -> Option<MetricResult> {
    let (first, _) = values.first()?;
    let size = |count: usize| {
        if aggregate.weight_by_size {
            count as f64
        } else {
            1.0
        }
    };
    let total: f64 = values.iter().map(|(_, count)| size(*count)).sum();
    let sum: f64 = values
        .iter()
        .map(|(metric, count)| metric.value * size(*count))
        .sum();
    let errors: Option<Vec<f64>> = values.iter().map(|(metric, _)| metric.stderr).collect();
    let stderr = errors.map(|errors| {
        if aggregate.weight_by_size {
            let variances = errors.iter().zip(values).map(|(error, (_, count))| {
                let count = *count as f64;
                (count - 1.0) * error.powi(2) * count
            });
            let pooled = variances.sum::<f64>() / (total - values.len() as f64);
            (pooled / total).sqrt()
        } else {
            errors.iter().map(|error| error.powi(2)).sum::<f64>().sqrt() / errors.len() as f64
        }
    });
    Some(MetricResult {
        name: aggregate.metric.clone(),
        value: sum / total,
        stderr,
        higher_is_better: aggregate.metric == AVERAGE || first.higher_is_better,
    })
}
