//! YAML files of definitions, with the files that they include.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::built_in;
use crate::{
    error::{Error, Result},
    text_file, yaml,
};

/// Largest file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Largest number of files of a definition.
const MAX_FILES: usize = 64;

/// Reads the file `path` and its includes; keys of the file replace keys of its includes.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; [`Error::Config`] if one is not a mapping in YAML, has a
/// `!function`, or includes itself.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>> {
    let load = |path: &Path| text_file::read(path, MAX_FILE, |problem| fault(path, "", problem));
    merged(path, &load, &mut BTreeSet::new())
}

/// Reads the built-in file `name`.
///
/// # Errors
/// As [`read`].
pub(super) fn read_built_in(name: &str) -> Result<Map<String, Value>> {
    let load = |path: &Path| {
        let source = built_in::source(path).ok_or_else(|| Error::missing_file(path, "missing"))?;
        Ok(source.to_owned())
    };
    merged(Path::new(name), &load, &mut BTreeSet::new())
}

fn merged(
    path: &Path,
    load: &dyn Fn(&Path) -> Result<String>,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<Map<String, Value>> {
    let identity = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if !seen.insert(identity) {
        return Err(fault(path, "include", "the file includes itself".into()));
    }
    if seen.len() > MAX_FILES {
        let problem = format!("expected at most {MAX_FILES} files, found more");
        return Err(fault(path, "include", problem));
    }
    let mut keys = parse(path, &load(path)?)?;
    let includes = match keys.shift_remove("include") {
        None | Some(Value::Null) => return Ok(keys),
        Some(Value::String(name)) => vec![Value::String(name)],
        Some(Value::Array(names)) => names,
        Some(other) => {
            let problem = format!("expected the name of a file, found {other}");
            return Err(fault(path, "include", problem));
        }
    };
    let mut all = Map::new();
    for name in includes {
        let Value::String(name) = name else {
            let problem = format!("expected the name of a file, found {name}");
            return Err(fault(path, "include", problem));
        };
        let included = path.parent().unwrap_or(Path::new("")).join(name);
        all.extend(merged(&included, load, seen)?);
    }
    all.extend(keys);
    Ok(all)
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>> {
    let value = yaml::parse(text).map_err(|error| {
        let place = match error.line {
            Some(line) => format!("line {line}: "),
            None => String::new(),
        };
        let problem = if error.problem.contains("tag `!function`") {
            "functions in Python (`!function`) are not supported; expected a template"
        } else {
            &error.problem
        };
        let key = error.line.and_then(|line| key_at(text, line));
        fault(path, key.unwrap_or_default(), format!("{place}{problem}"))
    })?;
    match value {
        Value::Object(keys) => Ok(keys),
        _ => Err(fault(path, "", "expected a mapping of keys".into())),
    }
}

/// The key at the beginning of `line`, from 1.
fn key_at(text: &str, line: usize) -> Option<&str> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let (key, _) = line.trim_start_matches([' ', '-']).split_once(':')?;
    let is_word = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_word.then_some(key)
}

/// A problem of the definition `path`; `key` is empty for the whole file.
pub(super) fn fault(path: &Path, key: &str, problem: String) -> Error {
    let key = if key.is_empty() { "task" } else { key };
    Error::config(path, key, problem)
}
