//! The output of a command that writes a JSON line for each row of its input: standard output, or a
//! file that the same command continues after a stop.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use openelm_core::output::check_inputs;
use serde_json::{Map, Value};

use crate::{
    error::Error,
    output::{self, json_line},
};

/// The rows of an input, and the keys of their results.
pub(crate) struct Expected<'a> {
    /// Option of the input.
    pub(crate) option: &'static str,
    /// The input; `None` for standard input.
    pub(crate) file: Option<&'a Path>,
    /// A noun for the results: `text`.
    pub(crate) result: &'static str,
    /// Keys that every result adds, the first one first.
    pub(crate) added: &'static [&'static str],
    /// Keys that some results add.
    pub(crate) optional: &'static [&'static str],
    /// The line of each row in the input, from 1, and its keys that the result copies.
    pub(crate) rows: Vec<(usize, &'a Map<String, Value>)>,
}

/// The complete rows of an output.
struct Written {
    rows: usize,
    bytes: u64,
}

impl Expected<'_> {
    /// Number of rows whose results are in the file at `path`, which need not exist.
    ///
    /// # Errors
    /// For a path that is no file, a file that has other lines than the results of the rows, in
    /// order, and a file that cannot be read.
    pub(crate) fn written(&self, path: &Path) -> Result<usize, Error> {
        Ok(count(self, path)?.rows)
    }

    fn file(&self) -> String {
        let file = self.file.map(|file| file.display().to_string());
        file.unwrap_or_else(|| "standard input".to_owned())
    }
}

fn count(rows: &Expected<'_>, path: &Path) -> Result<Written, Error> {
    check_inputs(path, rows.file.map(|file| (rows.option, file)))?;
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(error(
            path,
            "a folder, a device or a pipe, expected a file or a new path",
        )),
        Ok(_) => complete(rows, path, &fs::read(path).map_err(|e| error(path, e))?),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            Ok(Written { rows: 0, bytes: 0 })
        }
        Err(problem) => Err(error(path, problem)),
    }
}

/// The place of the results.
pub(crate) enum Sink {
    Stdout,
    File(File, PathBuf),
}

impl Sink {
    /// Opens `path` behind its complete rows and returns their number; `None` is standard output.
    ///
    /// # Errors
    /// As [`Expected::written`]; for a file that another process writes.
    pub(crate) fn open(rows: &Expected<'_>, path: Option<&Path>) -> Result<(Self, usize), Error> {
        let Some(path) = path else {
            return Ok((Self::Stdout, 0));
        };
        count(rows, path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let mut file = file.map_err(|problem| error(path, problem))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(error(path, "another process is writing this file"));
            }
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(|problem| error(path, problem))?;
        let written = complete(rows, path, &bytes)?;
        let cut = file.set_len(written.bytes);
        cut.map_err(|problem| error(path, problem))?;
        Ok((Self::File(file, path.to_owned()), written.rows))
    }

    /// Writes the line of one row.
    pub(crate) fn write(&mut self, object: Map<String, Value>) -> Result<(), Error> {
        let line = json_line(&Value::Object(object));
        match self {
            Self::Stdout => output::write(line.as_bytes()),
            Self::File(file, path) => {
                let written = file.write_all(line.as_bytes());
                written.map_err(|problem| error(path, problem))
            }
        }
    }
}

/// Compares `bytes` with the results of `rows`. A last line without an end is of a killed run.
fn complete(rows: &Expected<'_>, path: &Path, bytes: &[u8]) -> Result<Written, Error> {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (whole, last) = bytes.split_at(end);
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let given = &rows.rows;
    let wrong = |line: usize, row: Option<usize>| {
        let file = rows.file();
        let expected = match row {
            Some(row) => format!("expected the {} of {file}: line {row}", rows.result),
            None => format!("{file} has only {} rows", given.len()),
        };
        let problem = format!("line {line}: {expected}; choose another file");
        Err(error(path, problem))
    };
    for (index, line) in lines.iter().enumerate() {
        let row = given.get(index);
        if !row.is_some_and(|(_, object)| is_result_of(rows, object, line)) {
            return wrong(index + 1, row.map(|row| row.0));
        }
    }
    if !last.is_empty() {
        let row = given.get(lines.len());
        if !row.is_some_and(|(_, object)| is_start_of(rows, object, last)) {
            return wrong(lines.len() + 1, row.map(|row| row.0));
        }
    }
    Ok(Written {
        rows: lines.len(),
        bytes: end as u64,
    })
}

/// True if `line` has the keys of the row `object`, and those of a result.
fn is_result_of(rows: &Expected<'_>, object: &Map<String, Value>, line: &[u8]) -> bool {
    let Ok(Value::Object(mut found)) = serde_json::from_slice(line) else {
        return false;
    };
    let mut added = rows.added.iter();
    let added = added.all(|key| found.shift_remove(*key).is_some());
    for key in rows.optional {
        if !object.contains_key(*key) {
            found.shift_remove(*key);
        }
    }
    added && found == *object
}

/// True if `text` is the beginning of the result's line of the row `object`.
fn is_start_of(rows: &Expected<'_>, object: &Map<String, Value>, text: &[u8]) -> bool {
    let mut line = json_line(&Value::Object(object.clone()));
    line.truncate(line.len().saturating_sub("}\n".len()));
    if !object.is_empty() {
        line.push(',');
    }
    let first = rows.added.first().copied().unwrap_or_default();
    line.push_str(&format!("\"{first}\":"));
    let line = line.as_bytes();
    text.starts_with(line) || line.starts_with(text)
}

fn error(path: &Path, problem: impl ToString) -> Error {
    Error::Prompt {
        place: path.display().to_string(),
        problem: problem.to_string(),
    }
}
