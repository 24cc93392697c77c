//! `samples_TASK.jsonl`: a row per question, in lm-eval's shape. The rows of an interrupted
//! evaluation are read again.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use openelm_core::{
    evaluate::task::{Gold, Outcome, Question, Questions, TaskResult},
    output::write_file,
};
use serde_json::{Map, Value, json};

use crate::{error::Error, output::json_line};

/// The rows of a task's file.
pub(super) struct Samples {
    file: Option<(File, PathBuf)>,
    /// Outcomes of the questions so far, in order.
    pub(super) outcomes: Vec<Vec<Outcome>>,
}

impl Samples {
    /// Opens the file of the task `key` in `folder` behind its complete rows, whose outcomes are
    /// kept. Without a folder, nothing is written.
    ///
    /// # Errors
    /// For a file of other questions, a file that another process writes, and failures of the file
    /// system.
    pub(super) fn open(
        folder: Option<&Path>,
        key: &str,
        questions: &Questions,
    ) -> Result<Self, Error> {
        let Some(folder) = folder else {
            let (file, outcomes) = (None, Vec::new());
            return Ok(Self { file, outcomes });
        };
        let path = folder.join(format!("samples_{key}.jsonl"));
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let mut file = file.map_err(|problem| wrong(&path, problem))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(wrong(&path, "another process is writing this file"));
            }
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(|problem| wrong(&path, problem))?;
        let (outcomes, end) = complete(&path, &bytes, questions)?;
        let cut = file.set_len(end);
        cut.map_err(|problem| wrong(&path, problem))?;
        Ok(Self {
            file: Some((file, path)),
            outcomes,
        })
    }

    /// Appends the outcomes of the next question.
    pub(super) fn push(
        &mut self,
        question: &Question,
        outcomes: Vec<Outcome>,
    ) -> Result<(), Error> {
        if let Some((file, path)) = &mut self.file {
            let line = json_line(&Value::Object(row(question, &outcomes)));
            let written = file.write_all(line.as_bytes());
            written.map_err(|problem| wrong(path, problem))?;
        }
        self.outcomes.push(outcomes);
        Ok(())
    }

    /// Replaces the file of a complete task by one with the metrics of each question.
    pub(super) fn finish(self, questions: &Questions, result: &TaskResult) -> Result<(), Error> {
        let Some((file, path)) = self.file else {
            return Ok(());
        };
        let mut lines = String::new();
        for (index, (question, outcomes)) in questions.iter().zip(&self.outcomes).enumerate() {
            let mut row = row(question, outcomes);
            let mut names = Vec::new();
            for metric in &result.metrics {
                if let Some(value) = metric.values.get(index) {
                    names.push(metric.metric.name.clone());
                    row.insert(metric.metric.name.clone(), json!(value));
                }
            }
            row.insert("metrics".into(), json!(names));
            lines.push_str(&json_line(&Value::Object(row)));
        }
        write_file(&path, lines.into_bytes())?;
        drop(file);
        Ok(())
    }
}

/// The row of a question without its metrics.
fn row(question: &Question, outcomes: &[Outcome]) -> Map<String, Value> {
    let responses: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let greedy = if outcome.is_greedy { "True" } else { "False" };
            json!([outcome.sum.to_string(), greedy])
        })
        .collect();
    let mut row = Map::new();
    row.insert("doc_id".into(), json!(question.document));
    row.insert("target".into(), target(&question.gold));
    row.insert("arguments".into(), arguments(question));
    let each: Vec<Value> = responses.iter().map(|response| json!([response])).collect();
    row.insert("resps".into(), json!(each));
    row.insert("filtered_resps".into(), json!(responses));
    row.insert("filter".into(), json!("none"));
    let truncated: Vec<_> = outcomes.iter().map(|outcome| outcome.truncated).collect();
    row.insert("truncated".into(), json!(truncated));
    row
}

fn target(gold: &Gold) -> Value {
    match gold {
        Gold::Choices(choices) => match choices.as_slice() {
            [choice] => json!(choice.to_string()),
            choices => json!(format!("{choices:?}")),
        },
        Gold::None => Value::Null,
    }
}

fn arguments(question: &Question) -> Value {
    let requests = question.requests.iter().enumerate();
    let named = requests.map(|(index, request)| {
        let argument = json!({ "arg_0": &*request.context, "arg_1": request.continuation });
        (format!("gen_args_{index}"), argument)
    });
    Value::Object(named.collect())
}

/// The outcomes of the complete rows in `bytes`, and the length of these rows. The last row of a
/// killed process may be incomplete.
fn complete(
    path: &Path,
    bytes: &[u8],
    questions: &Questions,
) -> Result<(Vec<Vec<Outcome>>, u64), Error> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let end = end.map_or(0, |at| at + 1);
    let lines = bytes.get(..end).unwrap_or_default();
    let mut outcomes = Vec::new();
    let mut length = 0;
    let mut questions = questions.iter();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let Some(question) = questions.next() else {
            let problem = format!(
                "the file has the rows of more than {} questions; a smaller --limit needs another \
                 folder",
                outcomes.len()
            );
            return Err(wrong(path, problem));
        };
        let Some(found) = outcomes_of(line, question) else {
            let problem = format!(
                "line {}: expected the scores of document {} with the same requests; other shots, \
                 another seed or other data need another folder",
                outcomes.len() + 1,
                question.document
            );
            return Err(wrong(path, problem));
        };
        outcomes.push(found);
        length += line.len() as u64;
    }
    Ok((outcomes, length))
}

/// The outcomes in a row, if it is the row of `question`.
fn outcomes_of(line: &[u8], question: &Question) -> Option<Vec<Outcome>> {
    let row: Value = serde_json::from_slice(line).ok()?;
    if row.get("doc_id")?.as_u64()? != question.document as u64
        || *row.get("arguments")? != arguments(question)
    {
        return None;
    }
    let responses = row.get("filtered_resps")?.as_array()?;
    let truncated = row.get("truncated")?.as_array()?;
    let outcomes: Option<Vec<_>> = responses
        .iter()
        .enumerate()
        .map(|(index, response)| {
            let truncated = truncated.get(index)?.as_u64()?;
            Some(Outcome {
                sum: response.get(0)?.as_str()?.parse().ok()?,
                is_greedy: response.get(1)?.as_str()? == "True",
                truncated: usize::try_from(truncated).ok()?,
            })
        })
        .collect();
    outcomes.filter(|outcomes| outcomes.len() == question.requests.len())
}

/// Members of the description of a model that other scores come with.
const DECISIVE: [&str; 3] = ["model_fingerprint", "model_dtype", "device"];

/// Creates the folder of an evaluation, or checks that an existing one belongs to the same model:
/// `evaluation.json` has its description.
pub(super) fn open_folder(folder: &Path, about: &Map<String, Value>) -> Result<(), Error> {
    let path = folder.join("evaluation.json");
    match fs::read(&path) {
        Ok(found) => {
            let found: Value = serde_json::from_slice(&found).map_err(|e| wrong(&path, e))?;
            for key in DECISIVE {
                let (other, value) = (found.get(key), about.get(key));
                if other != value {
                    let [other, value] = [other, value].map(|v| v.unwrap_or(&Value::Null));
                    let problem = format!(
                        "the folder has the scores of another model; choose another folder \
                         ({key}: expected {value}, found {other})"
                    );
                    return Err(wrong(&path, problem));
                }
            }
            Ok(())
        }
        Err(_) if folder.exists() && !folder.is_dir() => {
            Err(wrong(folder, "expected a folder, found a file"))
        }
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(|problem| wrong(folder, problem))?;
            let is_empty = fs::read_dir(folder)
                .map_err(|problem| wrong(folder, problem))?
                .next()
                .is_none();
            if !is_empty {
                let problem = "the folder has other files; choose an empty or new folder";
                return Err(wrong(folder, problem));
            }
            Ok(write_file(
                &path,
                format!("{:#}\n", Value::Object(about.clone())).into_bytes(),
            )?)
        }
        Err(problem) => Err(wrong(&path, problem)),
    }
}

pub(super) fn wrong(path: &Path, problem: impl ToString) -> Error {
    Error::Settings {
        place: path.display().to_string(),
        problem: problem.to_string(),
    }
}
