//! Tasks of questions, as lm-eval's.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod commonsense;
mod data;
mod definitions;
mod groups;
mod lm_eval;

use std::path::{Path, PathBuf};

use openelm_core::{
    Result,
    evaluate::task::{Outcome, Plan, QuestionOptions, Questions, Tasks},
};
use openelm_testing::{TempDir, repository};
use serde_json::Value;

/// Writes rows as lines of JSON.
fn write_rows(folder: &TempDir, name: &str, rows: &Value) {
    let rows = rows.as_array().unwrap().iter();
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    folder.write(name, lines);
}

/// The plan of one task.
fn plan(name: &str, num_fewshot: usize) -> Plan {
    let plan = Tasks::built_in()
        .select(&[name], Some(num_fewshot))
        .unwrap();
    assert_eq!(plan.tasks.len(), 1);
    plan
}

/// The questions of a task without examples.
fn questions(name: &str, data: &Path) -> Result<Questions> {
    plan(name, 0).tasks[0].questions(data, &QuestionOptions::default())
}

/// A fixture that `parity/tasks.py` wrote.
fn fixture(name: &str) -> Value {
    let path = fixtures().join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn fixtures() -> PathBuf {
    repository("openelm-core/tests/fixtures/tasks")
}

/// The made-up outcome of `parity/tasks.py`.
fn outcome(document: usize, choice: usize) -> Outcome {
    let step = (document * 7 + choice * 13) % 5;
    Outcome {
        sum: -(step as f64) * 1.25 - 0.5,
        is_greedy: (document + choice).is_multiple_of(3),
        truncated: 0,
    }
}
