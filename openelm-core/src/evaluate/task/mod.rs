//! Tasks of questions, defined as in lm-eval (the LM Evaluation Harness, 0.4.13): their definitions,
//! documents, questions and metrics. No model is involved.
//!
//! ```no_run
//! use openelm_core::evaluate::task::{Outcome, QuestionOptions, Tasks};
//! # use openelm_core::evaluate::ScoreRequest;
//! # fn score(_: &[ScoreRequest]) -> Vec<Outcome> { Vec::new() }
//!
//! # fn main() -> openelm_core::Result<()> {
//! let tasks = Tasks::built_in();
//! let plan = tasks.select(&["zero-shot"], None)?;
//! let mut results = Vec::new();
//! for task in &plan.tasks {
//!     let questions = task.questions("data".as_ref(), &QuestionOptions::default())?;
//!     let outcomes: Vec<Vec<Outcome>> = questions
//!         .iter()
//!         .map(|question| score(&question.requests))
//!         .collect();
//!     results.push(questions.result(&outcomes)?);
//! }
//! let averages = plan.group_results(&results)?;
//! # Ok(())
//! # }
//! ```

mod build;
mod built_in;
mod compare;
mod data_files;
mod definition;
mod examples;
mod group;
mod keys;
mod metric;
mod nearest;
mod plan;
mod prompt;
mod python_literal;
mod python_random;
mod python_repr;
mod python_text;
mod question;
mod result;
mod rows;
mod scores;
mod tasks;
mod template;
mod yaml;

pub use compare::PairedDifference;
pub use plan::{Plan, PlannedGroup, PlannedTask};
pub use question::{Gold, Question, QuestionOptions, Questions, RequestKind};
pub use result::{GroupResult, MetricResult, MetricValue, Outcome, TaskResult};
pub use tasks::{TaskInfo, Tasks};
