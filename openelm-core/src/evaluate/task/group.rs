//! Definitions of groups.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::keys::Keys;
use crate::error::Result;

/// A group of tasks, groups and tags.
#[derive(Debug, Clone)]
pub(super) struct GroupDefinition {
    pub(super) source: PathBuf,
    pub(super) name: String,
    /// Number of examples of members that have none.
    pub(super) num_fewshot: Option<usize>,
    pub(super) members: Vec<Member>,
    pub(super) aggregates: Vec<Aggregate>,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Name of a task, group or tag.
    pub(super) name: String,
    /// Number of examples of its tasks.
    pub(super) num_fewshot: Option<usize>,
    /// Its metric in the group's `average`.
    pub(super) metric: Option<String>,
    /// A group that is defined here, unless the name is known.
    pub(super) inline: Option<GroupDefinition>,
}

/// An average over the tasks of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aggregate {
    /// Name of a metric of the tasks, or [`AVERAGE`].
    pub(super) metric: String,
    /// True if a task weighs as many times as it has questions.
    pub(super) weight_by_size: bool,
}

/// The mean of the members' own metrics. Not in lm-eval.
pub(super) const AVERAGE: &str = "average";

const KEYS: &str = "group, task, aggregate_metric_list, num_fewshot, metadata";
const MEMBER_KEYS: &str = "task, group, num_fewshot, metric";
const AGGREGATE_KEYS: &str = "metric, aggregation, weight_by_size";

impl GroupDefinition {
    /// The group of the file `source` with the keys `map`.
    ///
    /// # Errors
    /// As [`Definition::new`](super::definition::Definition::new).
    pub(super) fn new(source: &Path, map: Map<String, Value>) -> Result<Self> {
        let mut keys = Keys::new(source, "", map);
        let name = keys.text("group")?.ok_or_else(|| keys.missing("group"))?;
        keys.ignore(&["group_alias", "tag", "metadata"]);
        let num_fewshot = keys.count("num_fewshot")?;
        let list = keys.list("task").ok_or_else(|| keys.missing("task"))?;
        let mut members = Vec::new();
        for value in list {
            members.push(Member::new(&keys, source, &name, value)?);
        }
        let mut aggregates = Vec::new();
        for value in keys.list("aggregate_metric_list").unwrap_or_default() {
            let aggregate = Aggregate::new(keys.nested("aggregate_metric_list", value)?)?;
            if aggregate.metric == AVERAGE
                && let Some(member) = members.iter().find(|member| member.metric.is_none())
            {
                let problem = format!("`{}`: expected its `metric` for the average", member.name);
                return Err(keys.fault("task", problem));
            }
            aggregates.push(aggregate);
        }
        keys.finish(KEYS)?;
        Ok(Self {
            source: source.to_path_buf(),
            name,
            num_fewshot,
            members,
            aggregates,
        })
    }
}

impl Member {
    /// The member `value` of the group `parent`.
    fn new(keys: &Keys<'_>, source: &Path, parent: &str, value: Value) -> Result<Self> {
        if let Value::String(name) = value {
            return Ok(Self {
                name,
                num_fewshot: None,
                metric: None,
                inline: None,
            });
        }
        if let Some(Value::String(name)) = value.get("group") {
            let name = name.clone();
            let mut member = keys.nested("task", value.clone())?;
            let (num_fewshot, metric) = (member.count("num_fewshot")?, member.text("metric")?);
            let inline = match value {
                Value::Object(mut map) if map.contains_key("task") => {
                    map.shift_remove("metric");
                    map.insert("group".into(), format!("{parent}::{name}").into());
                    Some(GroupDefinition::new(source, map)?)
                }
                _ => {
                    member.ignore(&["group", "group_alias"]);
                    member.finish(MEMBER_KEYS)?;
                    None
                }
            };
            return Ok(Self {
                name,
                num_fewshot,
                metric,
                inline,
            });
        }
        let mut member = keys.nested("task", value)?;
        member.ignore(&["task_alias"]);
        let read = Self {
            name: member.text("task")?.ok_or_else(|| member.missing("task"))?,
            num_fewshot: member.count("num_fewshot")?,
            metric: member.text("metric")?,
            inline: None,
        };
        member.finish(MEMBER_KEYS)?;
        Ok(read)
    }
}

impl Aggregate {
    fn new(mut keys: Keys<'_>) -> Result<Self> {
        let metric = keys.text("metric")?.ok_or_else(|| keys.missing("metric"))?;
        if let Some(found) = keys.take("aggregation")
            && found != "mean"
        {
            return Err(keys.wrong("aggregation", "mean", &found));
        }
        // The only filter here.
        if let Some(found) = keys.take("filter_list")
            && found != "none"
            && found != Value::from(vec!["none"])
        {
            return Err(keys.wrong("filter_list", "none", &found));
        }
        let weight_by_size = keys.flag("weight_by_size")?.unwrap_or(true);
        keys.finish(AGGREGATE_KEYS)?;
        Ok(Self {
            metric,
            weight_by_size,
        })
    }
}
