//! The files of a data set's split, in folders as Hugging Face publishes them.
//!
//! Below the folder of the data: the folder of the task's name (`arc_easy`), of the data set's name
//! on the Hub (`allenai/ai2_arc`), of its last part (`ai2_arc`), or of its snapshot in the Hub's
//! cache (`datasets--allenai--ai2_arc/snapshots/COMMIT`); the first that holds the split is used. In it, the files of the split lie in the folder of the configuration (`ARC-Easy`), in
//! `data/`, in both, or in neither. A file belongs to a split by its name (`test.jsonl`,
//! `test-00000-of-00001.parquet`) or the name of its folder (`test/0000.parquet`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    definition::Definition,
    rows::{self, Columns},
};
use crate::{
    error::{Error, Result},
    lookup::is_folder,
    text_file,
};

/// Kinds of files, the preferred first.
const EXTENSIONS: [&str; 3] = ["parquet", "jsonl", "json"];
/// Other names of splits on the Hub.
const OTHER_NAMES: [(&str, &[&str]); 3] = [
    ("train", &["training"]),
    ("validation", &["valid", "val", "dev"]),
    ("test", &["testing", "eval", "evaluation"]),
];
/// Largest file with the name of a snapshot, in bytes.
const MAX_REFERENCE: u64 = 1 << 10;
/// Names of files in an error.
const MAX_NAMES: usize = 5;
/// Largest number of files in a folder.
const MAX_FILES: usize = 10_000;

/// A split's rows.
#[derive(Debug)]
pub(super) struct Split {
    /// The first file, for errors.
    pub(super) path: PathBuf,
    pub(super) rows: Vec<Columns>,
}

/// Reads the rows of a split of the task's data set, at most `limit`.
///
/// # Errors
/// [`Error::MissingFile`] with the tried folders; [`Error::Data`] if a file is malformed or the
/// split is empty.
pub(super) fn read(
    data: &Path,
    task: &Definition,
    split: &str,
    limit: Option<usize>,
) -> Result<Split> {
    let limit = limit.unwrap_or(usize::MAX);
    if !is_folder(data)? {
        return Err(Error::missing_file(data, "expected a folder of data sets"));
    }
    let places = places(data, task);
    for place in &places {
        let files = files(place, split)?;
        let Some(path) = files.first().cloned() else {
            continue;
        };
        let mut found = Vec::new();
        for file in files {
            if found.len() >= limit {
                break;
            }
            found.extend(rows::read(&file, limit - found.len())?);
        }
        if found.is_empty() {
            return Err(Error::data(
                path,
                None,
                "expected at least one document, found none",
            ));
        }
        return Ok(Split { path, rows: found });
    }
    Err(Error::missing_file(
        data,
        missing(data, task, split, &places),
    ))
}

/// The problem of a split without files: an expected file, and what is there.
fn missing(data: &Path, task: &Definition, split: &str, places: &[PathBuf]) -> String {
    let below = |place: &Path| {
        let below = place.strip_prefix(data).unwrap_or(place);
        below.display().to_string()
    };
    // The folder of the Hub's data set comes before the task's.
    let hub = Some(task.dataset_path.as_str()).filter(|path| !path.is_empty());
    let folder = hub.and_then(|hub| hub.rsplit('/').next());
    let expected = places.iter().find(|place| {
        let first = place
            .strip_prefix(data)
            .ok()
            .and_then(|below| below.iter().next());
        folder.is_some_and(|folder| first == Some(folder.as_ref()))
    });
    let expected = expected
        .or(places.first())
        .map_or(String::new(), |place| below(place));
    let mut problem = format!(
        "the task `{}` has no files of its split `{split}`; expected `{expected}/{split}.jsonl` or \
         `{expected}/{split}-00000-of-00001.parquet`, for example",
        task.name
    );
    match places.iter().find(|place| place.is_dir()) {
        Some(place) => {
            let found = entries(place);
            problem.push_str(&format!("; `{}` has {found}", below(place)));
        }
        None => problem.push_str(&format!("; the folder has {}", entries(data))),
    }
    if hub.is_some() {
        problem.push_str(&format!(
            "; data set on the Hugging Face Hub: {}",
            task.dataset()
        ));
    }
    problem
}

/// The first names in a folder, for errors.
fn entries(folder: &Path) -> String {
    let names = fs::read_dir(folder).into_iter().flatten();
    let names = names.filter_map(|entry| Some(format!("`{}`", entry.ok()?.file_name().display())));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    match (names.is_empty(), more) {
        (true, _) => "no files".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// Folders that may hold the files.
fn places(data: &Path, task: &Definition) -> Vec<PathBuf> {
    let last = task.dataset_path.rsplit('/').next().unwrap_or_default();
    // A name of a definition stays below the folder.
    let names = [task.name.as_str(), &task.dataset_path, last].into_iter();
    let names = names.filter(|name| !name.is_empty() && is_below(name));
    let mut folders: Vec<_> = names.map(|name| data.join(name)).collect();
    folders.extend(snapshot(data, &task.dataset_path));
    let mut places = Vec::new();
    for folder in folders {
        let configuration = task.dataset_name.as_deref().filter(|name| is_below(name));
        let mut add = |place: PathBuf| {
            if !places.contains(&place) {
                places.push(place);
            }
        };
        if let Some(configuration) = configuration {
            add(folder.join(configuration));
            for parent in ["data", "dataset"] {
                add(folder.join(parent).join(configuration));
            }
        }
        add(folder.join("data"));
        add(folder);
    }
    places
}

/// The folder of the data set in a cache of the Hub, if `data` is one: the snapshot of `refs/main`.
fn snapshot(data: &Path, dataset: &str) -> Option<PathBuf> {
    let repository = data.join(format!("datasets--{}", dataset.replace('/', "--")));
    let main = repository.join("refs").join("main");
    let commit = text_file::read_text_file(&main, MAX_REFERENCE).ok()?;
    let commit = commit.trim();
    is_below(commit).then(|| repository.join("snapshots").join(commit))
}

fn is_below(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// The files of `split` in `folder`, sorted.
fn files(folder: &Path, split: &str) -> Result<Vec<PathBuf>> {
    if !is_folder(folder)? {
        return Ok(Vec::new());
    }
    let others = OTHER_NAMES.iter().find(|(name, _)| *name == split);
    let others = others.map(|(_, names)| *names).unwrap_or_default();
    for name in [split].iter().chain(others) {
        let nested = folder.join(name);
        for extension in EXTENSIONS {
            let mut found = with_extension(folder, extension)?;
            found.retain(|file| is_of(file, name));
            if found.is_empty() && is_below(name) && is_folder(&nested)? {
                found = with_extension(&nested, extension)?;
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(Vec::new())
}

fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            let problem = format!("expected at most {MAX_FILES} files, found more");
            return Err(Error::data(folder, None, problem));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// True if the name of `file` is `split`, or has it between marks: `test-00000-of-00001`,
/// `winogrande.test`.
fn is_of(file: &Path, split: &str) -> bool {
    let name = file.file_stem().and_then(|name| name.to_str());
    let Some(name) = name else {
        return false;
    };
    name.match_indices(split).any(|(at, _)| {
        let before = name.get(..at).and_then(|text| text.chars().next_back());
        let after = name
            .get(at + split.len()..)
            .and_then(|text| text.chars().next());
        [before, after]
            .iter()
            .all(|mark| mark.is_none_or(|mark| !mark.is_alphanumeric()))
    })
}
