//! The known tasks, groups and tags.

use std::path::Path;

use super::plan::Plan;
use crate::error::{Error, Result};

/// Definitions of tasks and groups: the built-in ones and those of files.
#[derive(Debug, Clone, Default)]
pub struct Tasks {}

/// A task or a group, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Name, as in lm-eval.
    pub name: String,
    /// Data set on the Hugging Face Hub, and its configuration; empty for a group.
    pub dataset: String,
    /// Number of tasks in a group; `None` for a task.
    pub tasks: Option<usize>,
}

impl Tasks {
    /// The built-in definitions.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Adds the task or group of the YAML file `path`, and returns its name. A definition of the
    /// same name is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Config`] with the key for a definition
    /// that is malformed or not supported.
    pub fn add_file(&mut self, path: &Path) -> Result<String> {
        Err(Error::config(path, "task", "not supported"))
    }

    /// All tasks and groups, by name.
    pub fn list(&self) -> Vec<TaskInfo> {
        Vec::new()
    }

    /// The tasks of `names`: names of tasks, groups or tags. `num_fewshot` replaces the number of
    /// examples of each task that does not fix it at 0.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, with the nearest names.
    pub fn select(&self, names: &[impl AsRef<str>], num_fewshot: Option<usize>) -> Result<Plan> {
        let _ = (names.first().map(AsRef::as_ref), num_fewshot);
        Err(Error::option("tasks", "expected the name of a task"))
    }
}
