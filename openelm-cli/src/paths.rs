//! Lists of paths on the command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::Deserialize;

/// The paths in one argument, separated by commas; in a TOML file, one path. The name of an
/// existing file or folder may contain commas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "PathBuf")]
pub(crate) struct Paths(Vec<PathBuf>);

impl Paths {
    /// The parser of an argument.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::split)
    }

    /// The paths of all `arguments`.
    pub(crate) fn all(arguments: &[Self]) -> Vec<PathBuf> {
        let paths = arguments.iter().flat_map(|Self(paths)| paths);
        paths.cloned().collect()
    }

    fn split(argument: OsString) -> Result<Self, &'static str> {
        let Some(text) = argument.to_str() else {
            return Ok(Self(vec![argument.into()]));
        };
        let exists = |text: &str| Path::new(text).symlink_metadata().is_ok();
        let mut paths = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            // The longest existing path first, then up to the first comma.
            let commas = text.rmatch_indices(',').map(|(at, _)| Some(at));
            let ends = [None].into_iter().chain(commas);
            let parts = ends.map(|end| match end {
                Some(at) => (text.get(..at), text.get(at + 1..)),
                None => (Some(text), None),
            });
            let existing = |(path, _): &(Option<&str>, _)| path.is_some_and(exists);
            let (path, after) = match parts.into_iter().find(existing) {
                Some((path, after)) => (path.unwrap_or(text), after),
                None => match text.split_once(',') {
                    Some((path, after)) => (path, Some(after)),
                    None => (text, None),
                },
            };
            if path.is_empty() {
                return Err("expected a path, found none");
            }
            paths.push(PathBuf::from(path));
            rest = after;
        }
        Ok(Self(paths))
    }
}

impl From<PathBuf> for Paths {
    fn from(path: PathBuf) -> Self {
        Self(vec![path])
    }
}

impl From<Vec<PathBuf>> for Paths {
    fn from(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn a_comma_in_an_existing_path_separates_nothing() {
        let folder = TempDir::new();
        for name in ["a,b.jsonl", "c", "d,"] {
            folder.write(name, "");
        }
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let split = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| path(name)).collect();
            Paths::split(names.join(",").into()).unwrap().0
        };
        let paths = |names: &[&str]| {
            names
                .iter()
                .map(|name| folder.join(name))
                .collect::<Vec<_>>()
        };
        for (given, expected) in [
            (&["a,b.jsonl"][..], &["a,b.jsonl"][..]),
            (
                &["a,b.jsonl", "c", "a,b.jsonl"],
                &["a,b.jsonl", "c", "a,b.jsonl"],
            ),
            (&["d,", "c"], &["d,", "c"]),
            (&["*.txt", "nowhere", "c"], &["*.txt", "nowhere", "c"]),
        ] {
            assert_eq!(split(given), paths(expected));
        }
        let apart = Paths::split(format!("{},x", path("z")).into()).unwrap();
        assert_eq!(apart.0, [folder.join("z"), "x".into()]);
        for empty in ["", "a,", ",a", "a,,b"] {
            Paths::split(empty.into()).unwrap_err();
        }
    }
}
