//! The known tasks, groups and tags.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Map, Value};

use super::{
    built_in,
    definition::Definition,
    group::GroupDefinition,
    nearest::nearest,
    plan::{Plan, PlannedGroup, PlannedMember, PlannedTask},
    prompt::Prompts,
    yaml,
};
use crate::error::{Error, Result};

/// Definitions of tasks and groups: the built-in ones and those of files.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tasks: BTreeMap<String, Arc<Definition>>,
    groups: BTreeMap<String, GroupDefinition>,
}

/// A task or a group, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Name, as in lm-eval.
    pub name: String,
    /// Data set on the Hugging Face Hub, and its configuration; empty for a group.
    pub dataset: String,
    /// Number of members of a group; `None` for a task.
    pub tasks: Option<usize>,
}

/// Deepest nesting of groups.
const MAX_DEPTH: usize = 16;
/// Largest number of names in a selection, members of groups included.
const MAX_TASKS: usize = 10_000;

impl Tasks {
    /// The built-in definitions.
    pub fn built_in() -> Self {
        built_in::tasks()
    }

    /// Adds the task or group of the YAML file `path`, and returns its name. A definition of the
    /// same name is replaced.
    ///
    /// The file has lm-eval's keys, and templates in Jinja. Supported values of `output_type` are
    /// `multiple_choice`, `loglikelihood` and `loglikelihood_rolling`. Functions in Python
    /// (`!function`) are not supported; instead of them
    ///
    /// - templates have the filters `regex_replace(pattern, text)`, `python_literal` (Python's
    ///   `ast.literal_eval`) and `llm_adapters_choices` (the answers of LLM-Adapters' instructions),
    /// - `process_results` is `truthfulqa_mc2` or `crows_pairs`,
    /// - a group's `aggregate_metric_list` may have the metric `average`, the mean of the `metric`
    ///   of each member.
    ///
    /// `dataset_kwargs` changes nothing: the data is below a folder, see [`PlannedTask::questions`].
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Config`] with the key for a definition
    /// that is malformed or not supported.
    pub fn add_file(&mut self, path: &Path) -> Result<String> {
        self.add(path, yaml::read(path)?)
    }

    /// Adds the task or group with these keys.
    pub(super) fn add(&mut self, source: &Path, keys: Map<String, Value>) -> Result<String> {
        if keys.get("group").is_some_and(|group| !group.is_null()) {
            let group = GroupDefinition::new(source, keys)?;
            let name = group.name.clone();
            self.tasks.remove(&name);
            self.groups.insert(name.clone(), group);
            return Ok(name);
        }
        let task = Definition::new(source, keys)?;
        Prompts::new(&task)?;
        let name = task.name.clone();
        self.groups.remove(&name);
        self.tasks.insert(name.clone(), Arc::new(task));
        Ok(name)
    }

    /// All groups and tasks, each by name.
    pub fn list(&self) -> Vec<TaskInfo> {
        let groups = self.groups.values().map(|group| TaskInfo {
            name: group.name.clone(),
            dataset: String::new(),
            tasks: Some(group.members.len()),
        });
        let tasks = self.tasks.values().map(|task| TaskInfo {
            name: task.name.clone(),
            dataset: task.dataset(),
            tasks: None,
        });
        groups.chain(tasks).collect()
    }

    /// The tasks of `names`: names of tasks, groups or tags. `num_fewshot` replaces the number of
    /// examples of each task whose definition or group does not fix it at 0, as in lm-eval.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, with the nearest names; [`Error::Config`] for a group
    /// with an unknown member.
    pub fn select(&self, names: &[impl AsRef<str>], num_fewshot: Option<usize>) -> Result<Plan> {
        let mut selection = Selection {
            tasks: self,
            num_fewshot,
            plan: Plan::default(),
            visited: 0,
        };
        for name in names {
            let name = name.as_ref();
            let found = selection.add(name, None, 0)?;
            if found.is_empty() {
                return Err(Error::option("tasks", self.unknown(name)));
            }
        }
        if selection.plan.tasks.is_empty() {
            return Err(Error::option("tasks", "expected the name of a task"));
        }
        Ok(selection.plan)
    }

    fn has(&self, name: &str) -> bool {
        self.groups.contains_key(name) || self.tasks.contains_key(name)
    }

    fn unknown(&self, name: &str) -> String {
        let tags = self.tasks.values().flat_map(|task| &task.tags);
        let known = self.groups.keys().chain(self.tasks.keys()).chain(tags);
        let mut problem = format!("expected the name of a task, found `{name}`");
        let near = nearest(name, known.map(String::as_str));
        if !near.is_empty() {
            let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
            problem.push_str(&format!("; the nearest are {}", near.join(", ")));
        }
        problem
    }
}

/// A plan in the making.
struct Selection<'a> {
    tasks: &'a Tasks,
    num_fewshot: Option<usize>,
    plan: Plan,
    visited: usize,
}

impl Selection<'_> {
    /// Adds the task, group or tag `name`; empty if there is none. `shots` is the number of
    /// examples that a group sets.
    fn add(
        &mut self,
        name: &str,
        shots: Option<usize>,
        depth: usize,
    ) -> Result<Vec<PlannedMember>> {
        self.visited += 1;
        if self.visited > MAX_TASKS {
            let problem = format!("expected at most {MAX_TASKS} tasks, found more");
            return Err(Error::option("tasks", problem));
        }
        let known = self.tasks;
        if let Some(group) = known.groups.get(name) {
            return Ok(vec![self.add_group(group, shots, depth)?]);
        }
        if let Some(task) = known.tasks.get(name) {
            return Ok(vec![self.add_task(task, shots)]);
        }
        let tagged = known
            .tasks
            .values()
            .filter(|task| task.tags.iter().any(|tag| tag == name));
        Ok(tagged.map(|task| self.add_task(task, shots)).collect())
    }

    fn add_task(&mut self, task: &Arc<Definition>, shots: Option<usize>) -> PlannedMember {
        let defined = shots.or(task.num_fewshot);
        let num_fewshot = match (self.num_fewshot, defined) {
            (Some(number), defined) if defined != Some(0) => number,
            (_, defined) => defined.unwrap_or(0),
        };
        let tasks = &mut self.plan.tasks;
        let is_same = |other: &PlannedTask| {
            other.definition.name == task.name && other.num_fewshot == num_fewshot
        };
        let at = match tasks.iter().position(is_same) {
            Some(at) => at,
            None => {
                tasks.push(PlannedTask {
                    definition: Arc::clone(task),
                    num_fewshot,
                });
                tasks.len() - 1
            }
        };
        PlannedMember::Task(at)
    }

    fn add_group(
        &mut self,
        group: &GroupDefinition,
        shots: Option<usize>,
        depth: usize,
    ) -> Result<PlannedMember> {
        let fault = |problem| yaml::fault(&group.source, "task", problem);
        if depth >= MAX_DEPTH {
            return Err(fault(format!(
                "expected at most {MAX_DEPTH} nested groups, found more"
            )));
        }
        let mut members = Vec::new();
        for member in &group.members {
            // As in lm-eval: the member's number, the outer groups', the group's.
            let shots = member.num_fewshot.or(shots).or(group.num_fewshot);
            let found = match &member.inline {
                Some(group) if !self.tasks.has(&member.name) => {
                    vec![self.add_group(group, shots, depth + 1)?]
                }
                _ => self.add(&member.name, shots, depth + 1)?,
            };
            if found.is_empty() {
                return Err(fault(self.tasks.unknown(&member.name)));
            }
            members.extend(found.into_iter().map(|at| (at, member.metric.clone())));
        }
        let mut tasks = Vec::new();
        for (member, _) in &members {
            let own = match *member {
                PlannedMember::Task(at) => vec![at],
                PlannedMember::Group(at) => {
                    let group = self.plan.groups.get(at);
                    group.map(|group| group.tasks.clone()).unwrap_or_default()
                }
            };
            let new: Vec<_> = own.into_iter().filter(|at| !tasks.contains(at)).collect();
            tasks.extend(new);
        }
        let planned = PlannedGroup {
            name: group.name.clone(),
            tasks,
            members,
            aggregates: group.aggregates.clone(),
        };
        let groups = &mut self.plan.groups;
        let at = match groups.iter().position(|other| *other == planned) {
            Some(at) => at,
            None => {
                groups.push(planned);
                groups.len() - 1
            }
        };
        Ok(PlannedMember::Group(at))
    }
}
