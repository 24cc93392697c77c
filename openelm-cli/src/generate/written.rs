//! The texts that a file of `--output` has already.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use openelm_core::output::check_inputs;

use super::{
    rows::{ADDED, Row, Rows},
    text_options::TextOptions,
};
use crate::{
    copied_keys::{line_start, written_values},
    error::Error,
    output,
};

/// The complete rows of an output.
pub(super) struct Written {
    pub(super) rows: usize,
    bytes: u64,
}

/// Counts the rows of the file at `path`, which need not exist.
///
/// # Errors
/// For a path that is no file, a file that has other lines than the texts of `rows`, in order, or
/// texts of other options, and a file that cannot be read.
pub(super) fn count(rows: &Rows, options: &TextOptions, path: &Path) -> Result<Written, Error> {
    check_inputs(path, [("--prompts", rows.file())])?;
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(error(
            path,
            "a folder, a device or a pipe, expected a file or a new path",
        )),
        Ok(_) => {
            let bytes = fs::read(path).map_err(|problem| error(path, problem))?;
            let written = complete(rows, path, &bytes)?;
            if written.rows > 0 {
                options.check(path)?;
            }
            Ok(written)
        }
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            Ok(Written { rows: 0, bytes: 0 })
        }
        Err(problem) => Err(error(path, problem)),
    }
}

/// The place of the texts.
pub(super) enum Sink {
    Stdout,
    File(File, PathBuf),
}

impl Sink {
    /// Opens `path` behind its complete rows and returns their number; `None` is standard output.
    /// Records `options` with the first row.
    ///
    /// # Errors
    /// As [`count`]; for a file that another process writes.
    pub(super) fn open(
        rows: &Rows,
        options: &TextOptions,
        path: Option<&Path>,
    ) -> Result<(Self, usize), Error> {
        let Some(path) = path else {
            return Ok((Self::Stdout, 0));
        };
        count(rows, options, path)?;
        let mut opening = OpenOptions::new();
        let file = opening.read(true).append(true).create(true).open(path);
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
        match written.rows {
            0 => options.save(path)?,
            _ => options.check(path)?,
        }
        let cut = file.set_len(written.bytes);
        cut.map_err(|problem| error(path, problem))?;
        Ok((Self::File(file, path.to_owned()), written.rows))
    }

    /// Writes the line of one row.
    pub(super) fn write(&mut self, line: &str) -> Result<(), Error> {
        match self {
            Self::Stdout => output::write(line.as_bytes()),
            Self::File(file, path) => {
                let written = file.write_all(line.as_bytes());
                written.map_err(|problem| error(path, problem))
            }
        }
    }
}

/// Compares `bytes` with the texts of `rows`. A last line without an end is of a killed run.
fn complete(rows: &Rows, path: &Path, bytes: &[u8]) -> Result<Written, Error> {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (whole, last) = bytes.split_at(end);
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let given = rows.as_slice();
    let wrong = |line: usize, prompt: Option<&Row>| {
        let expected = match prompt {
            Some(row) => format!(
                "expected the text of {}: line {}",
                rows.file().display(),
                row.line
            ),
            None => format!("{} has only {} rows", rows.file().display(), rows.len()),
        };
        let problem = format!("line {line}: {expected}; choose another file");
        Err(error(path, problem))
    };
    for (index, line) in lines.iter().enumerate() {
        let row = given.get(index);
        if !row.is_some_and(|row| is_text_of(row, line)) {
            return wrong(index + 1, row);
        }
    }
    if !last.is_empty() {
        let row = given.get(lines.len());
        if !row.is_some_and(|row| is_start_of(row, last)) {
            return wrong(lines.len() + 1, row);
        }
    }
    Ok(Written {
        rows: lines.len(),
        bytes: end as u64,
    })
}

/// True if `line` has the keys of `row`, and those of a text.
fn is_text_of(row: &Row, line: &[u8]) -> bool {
    let values = str::from_utf8(line).map(written_values);
    let Ok(Ok(mut values)) = values else {
        return false;
    };
    let added = ADDED.iter().all(|key| values.remove(*key).is_some());
    if row.seed.is_none() {
        values.remove("seed");
    }
    added && values == row.copied.iter().cloned().collect()
}

/// True if `text` is the beginning of the line of `row`.
fn is_start_of(row: &Row, text: &[u8]) -> bool {
    let line = line_start(&row.copied) + "\"text\":\"";
    let line = line.as_bytes();
    text.starts_with(line) || line.starts_with(text)
}

fn error(path: &Path, problem: impl ToString) -> Error {
    Error::Prompt {
        place: path.display().to_string(),
        problem: problem.to_string(),
    }
}
