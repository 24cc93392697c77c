//! The tasks of an evaluation, and the groups that average them.

use std::path::Path;

use super::{
    question::{QuestionOptions, Questions},
    result::{GroupResult, TaskResult},
};
use crate::error::{Error, Result};

/// Tasks to evaluate, each once, and the groups over them.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Tasks in the order of selection, each pair of task and number of examples once.
    pub tasks: Vec<PlannedTask>,
    /// Groups, each before the groups in it.
    pub groups: Vec<PlannedGroup>,
}

/// A task with its number of examples.
#[derive(Debug, Clone)]
pub struct PlannedTask {
    name: String,
    num_fewshot: usize,
}

/// A group of tasks whose metrics are averaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGroup {
    /// Name of the group.
    pub name: String,
    /// Positions of its tasks in [`Plan::tasks`].
    pub tasks: Vec<usize>,
}

impl PlannedTask {
    /// Name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of examples before each question.
    pub fn num_fewshot(&self) -> usize {
        self.num_fewshot
    }

    /// Reads the task's documents below the folder `data` and makes its questions.
    ///
    /// # Errors
    /// [`Error::MissingFile`] with all tried places if the data is missing; [`Error::Data`] if a
    /// file is malformed or lacks a column; [`Error::Config`] if a template fails on a document.
    pub fn questions(&self, data: &Path, options: &QuestionOptions) -> Result<Questions> {
        let _ = options;
        Err(Error::missing_file(data, "not supported"))
    }
}

impl Plan {
    /// The averages of the groups, from the results of [`tasks`](Self::tasks) in their order.
    ///
    /// # Errors
    /// [`Error::Option`] if the number of results differs from the number of tasks.
    pub fn group_results(&self, results: &[TaskResult]) -> Result<Vec<GroupResult>> {
        let _ = results;
        Ok(Vec::new())
    }
}
