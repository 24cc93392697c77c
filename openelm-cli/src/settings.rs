//! Settings in TOML files, by the names that options have on the command line.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Reads a file of settings.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let problem = |problem: String| Error::Settings {
        place: file.display().to_string(),
        problem,
    };
    let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or_default();
            before.matches('\n').count() + 1
        });
        let place = place
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        problem(format!("{place}{}", error.message()))
    })
}

/// The value that `name` stands for.
pub(crate) fn one_of<T: Clone>(option: &str, name: &str, known: &[(&str, T)]) -> Result<T, Error> {
    if let Some((_, value)) = known.iter().find(|(known, _)| *known == name) {
        return Ok(value.clone());
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Err(Error::Usage(format!(
        "{option}: expected {}, found '{name}'",
        names.join(", ")
    )))
}
