//! Repositories in the Hugging Face Hub cache, for every path of a model, tokenizer or adapter.
//!
//! The cache holds a folder per repository (`models--apple--OpenELM-270M`) with a folder per
//! snapshot (`snapshots/COMMIT`); `refs/main` names a snapshot.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Remedy, Result},
    lookup::{first_file, is_folder},
    text_file::{self, MAX_SETTINGS},
};

/// The folder of `path` that holds one of `names`: `path` itself, or a snapshot of a repository in
/// the Hub cache. `path` itself too if no folder holds one.
///
/// # Errors
/// [`Error::MissingFile`] if several snapshots hold one and `refs/main` names none of them, or
/// `path` is the cache itself; [`Error::Io`] if a folder cannot be read.
pub(crate) fn resolve(path: &Path, names: &[&str]) -> Result<PathBuf> {
    if !is_folder(path)? || first_file(path, names)?.is_some() {
        return Ok(path.to_path_buf());
    }
    let snapshots = path.join("snapshots");
    if !is_folder(&snapshots)? {
        return match repository_in(path) {
            None => Ok(path.to_path_buf()),
            Some(repository) => Err(Error::missing_file(
                path,
                format!(
                    "a cache of the Hugging Face Hub; give the path of a repository in it, such \
                     as `{repository}`"
                ),
            )),
        };
    }
    let main = path.join("refs").join("main");
    let wrong = |problem| Error::missing_file(&main, problem);
    if let Ok(commit) = text_file::read(&main, MAX_SETTINGS, wrong)
        && Path::new(commit.trim()).file_name() == Some(commit.trim().as_ref())
    {
        let folder = snapshots.join(commit.trim());
        if matches!(first_file(&folder, names), Ok(Some(_))) {
            return Ok(folder);
        }
    }
    let entries = fs::read_dir(&snapshots).map_err(Error::io(&snapshots))?;
    let mut complete = Vec::new();
    let mut problem = None;
    for entry in entries {
        let folder = entry.map_err(Error::io(&snapshots))?.path();
        match first_file(&folder, names) {
            Ok(Some(_)) => complete.push(folder),
            Ok(None) => {}
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    match (complete.pop(), complete.is_empty(), problem) {
        (Some(only), true, _) => Ok(only),
        (Some(_), false, _) => Err(Error::missing_file(
            main,
            "names none of the cache's several snapshots; give the path of one in snapshots/",
        )),
        (None, _, Some(problem)) => Err(problem),
        (None, _, None) => Ok(path.to_path_buf()),
    }
}

/// The error of a path that does not exist, `expected` there. A path in the form of a repository's
/// name is advised to be downloaded.
pub(crate) fn absent(path: &Path, expected: &str) -> Error {
    let error = Error::missing_file(path, format!("no such file or folder; expected {expected}"));
    match repository_name(path) {
        Some(name) => error.with_remedy(Remedy::Download(name)),
        None => error,
    }
}

/// The first repository in a cache: `models--…` in `path`, or in its folder `hub`.
fn repository_in(path: &Path) -> Option<String> {
    let is_repository = |name: &String| name.starts_with("models--");
    let first = |folder: &Path| {
        let names = fs::read_dir(folder).ok()?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(is_repository).min()
    };
    let in_hub = || Some(format!("hub/{}", first(&path.join("hub"))?));
    first(path).or_else(in_hub)
}

/// `owner/name`, if `path` has this form and there is no folder `owner`.
fn repository_name(path: &Path) -> Option<String> {
    let (owner, name) = path.to_str()?.split_once('/')?;
    let is_word = |word: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(allowed)
    };
    let is_local = Path::new(owner).symlink_metadata().is_ok();
    (is_word(owner) && is_word(name) && !is_local).then(|| format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_repositories_are_advised_to_be_downloaded() {
        let advised = |path: &str| absent(path.as_ref(), "a model").to_string();
        assert!(advised("apple/OpenELM-270M").contains("download it first"));
        // Tests run in the folder of the package.
        for local in ["src/absent", "./a/b", "absent", "a/b/c"] {
            let text = advised(local);
            assert!(!text.contains("download"), "{text}");
        }
    }
}
