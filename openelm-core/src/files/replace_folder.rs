//! Replaces the files of a model folder. Other files and folders in it stay.
//!
//! The new files are complete in a staging folder before the old ones are touched. A journal in the
//! staging folder then lists the changes: `config.json`, without which no program reads the folder,
//! is removed first and moved last. A run that is killed in between leaves the journal, and the next
//! one finishes the changes.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    atomic::{remove, write_synced},
    paths::partial_path,
};
use crate::{
    error::{Error, Result},
    text_file::{MAX_SETTINGS, read_text_file},
};

/// The journal in a staging folder: a JSON list of the old files to remove.
const JOURNAL: &str = "journal.json";
const CONFIG: &str = "config.json";

/// Calls `fill` with an empty folder and moves its files to `folder`, which is created if needed.
/// Of an existing folder, the files with names of `is_own` are replaced. The caller has locked the
/// folder that contains `folder`.
///
/// # Errors
/// The errors of `fill`, and of [`replace_folder`].
pub(crate) fn write_folder_beside(
    folder: &Path,
    is_own: fn(&str) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let folder = super::resolve(folder)?;
    let staging = partial_path(&folder);
    finish_replacement(&staging, &folder)?;
    let new = new_folder(&staging);
    let written = remove(&staging)
        .and_then(|()| fs::create_dir_all(&new).map_err(Error::io(&new)))
        .and_then(|()| fill(&new).map_err(|error| of_target(error, &new, &folder)))
        .and_then(|()| replace_folder(&staging, &folder, is_own));
    if written.is_err() && !has_journal(&staging) {
        let _ = remove(&staging);
    }
    written?;
    remove(&staging)
}

/// Replaces the path of a new file in an error by its final path: the staging folder is removed.
fn of_target(mut error: Error, new: &Path, folder: &Path) -> Error {
    if let Error::Io { path, .. } = &mut error
        && let Ok(inner) = path.strip_prefix(new)
    {
        *path = folder.join(inner);
    }
    error
}

/// The folder of the new files in `staging`.
pub(crate) fn new_folder(staging: &Path) -> PathBuf {
    staging.join("model")
}

/// True if the changes of `staging` have begun.
pub(crate) fn has_journal(staging: &Path) -> bool {
    staging.join(JOURNAL).exists()
}

/// Moves the new files in `staging` to the folder `target`. Its old files with names of `is_own` are
/// removed.
///
/// # Errors
/// [`Error::Destination`] if a folder is in place of a file, before any change; [`Error::Io`].
pub(crate) fn replace_folder(
    staging: &Path,
    target: &Path,
    is_own: fn(&str) -> bool,
) -> Result<()> {
    let new = new_folder(staging);
    if fs::symlink_metadata(target).is_err() {
        return fs::rename(&new, target).map_err(Error::io(target));
    }
    let added = names(&new)?;
    let mut stale = Vec::new();
    for name in names(target)? {
        if target.join(&name).is_dir() {
            if added.contains(&name) {
                let problem = format!("`{name}` is a folder, expected a file");
                return Err(Error::destination(target, problem));
            }
        } else if is_own(&name) && !added.contains(&name) {
            stale.push(name);
        }
    }
    let journal = serde_json::Value::from(stale).to_string();
    // Written beside and renamed: a cut journal would not list all.
    super::write_beside(&staging.join(JOURNAL), |partial| {
        write_synced(partial, &journal)
    })?;
    finish_replacement(staging, target)
}

/// Finishes the changes that the journal in `staging` lists, if there is one.
///
/// # Errors
/// [`Error::Io`]; the journal then stays, for the next run.
pub(crate) fn finish_replacement(staging: &Path, target: &Path) -> Result<()> {
    let journal = staging.join(JOURNAL);
    let text = match read_text_file(&journal, MAX_SETTINGS) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(Error::destination(&journal, error.to_string()));
        }
        Err(_) => return Ok(()),
    };
    let stale: Vec<String> = serde_json::from_str(&text)
        .map_err(|error| Error::destination(&journal, error.to_string()))?;
    let new = new_folder(staging);
    // Without the target, nothing was moved, or a user has removed the result.
    if target.is_dir() {
        let mut added = names(&new)?;
        if added.contains(CONFIG) {
            remove(&target.join(CONFIG))?;
        }
        for name in stale {
            remove(&target.join(name))?;
        }
        let last = added.take(CONFIG);
        for name in added.into_iter().chain(last) {
            let to = target.join(&name);
            fs::rename(new.join(&name), &to).map_err(Error::io(to))?;
        }
    }
    // First the journal, so that no later run removes a file that is new by then.
    remove(&journal)
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        // A name that is not UTF-8 is not a name of this crate.
        names.extend(entry.map_err(Error::io(folder))?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    fn is_own(name: &str) -> bool {
        ["config.json", "model.safetensors", "tokenizer.model"].contains(&name)
    }

    /// A model folder with other files, and the staging folder of its successor.
    fn scratch() -> (TempDir, PathBuf, PathBuf) {
        let folder = TempDir::new();
        for name in ["config.json", "model.safetensors", "tokenizer.model"] {
            folder.write(&format!("model/{name}"), "old");
        }
        folder.write("model/notes.txt", "notes");
        folder.write("model/.git/HEAD", "main");
        folder.write("model/adapters/adapters.safetensors", "adapter");
        let target = folder.join("model");
        let staging = partial_path(&target);
        for name in ["config.json", "model.safetensors"] {
            folder.write(&format!(".model.openelm-partial/model/{name}"), "new");
        }
        (folder, staging, target)
    }

    fn assert_replaced(folder: &TempDir) {
        let names = |name: &str| names(&folder.join(name)).unwrap();
        let expected = [
            ".git",
            "adapters",
            "config.json",
            "model.safetensors",
            "notes.txt",
        ];
        assert!(names("model").iter().eq(expected), "{:?}", names("model"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("model/config.json"), "new");
        assert_eq!(read("model/model.safetensors"), "new");
        assert_eq!(read("model/notes.txt"), "notes");
        assert_eq!(read("model/.git/HEAD"), "main");
        assert!(folder.join("model/adapters/adapters.safetensors").exists());
    }

    #[test]
    fn other_files_stay() {
        let (folder, staging, target) = scratch();
        replace_folder(&staging, &target, is_own).unwrap();
        assert!(!has_journal(&staging));
        assert_replaced(&folder);
    }

    /// Every state between two changes, as after a kill.
    #[test]
    fn killed_replacement_is_finished_by_the_next_run() {
        for steps in 0..5 {
            let (folder, staging, target) = scratch();
            fs::write(staging.join(JOURNAL), r#"["tokenizer.model"]"#).unwrap();
            let new = new_folder(&staging);
            let changes: [&dyn Fn(); 4] = [
                &|| remove(&target.join(CONFIG)).unwrap(),
                &|| remove(&target.join("tokenizer.model")).unwrap(),
                &|| {
                    let name = "model.safetensors";
                    fs::rename(new.join(name), target.join(name)).unwrap();
                },
                &|| fs::rename(new.join(CONFIG), target.join(CONFIG)).unwrap(),
            ];
            changes.iter().take(steps).for_each(|change| change());
            finish_replacement(&staging, &target).unwrap();
            assert!(!has_journal(&staging));
            assert_replaced(&folder);
            // A file that is added later stays.
            folder.write("model/tokenizer.model", "added");
            finish_replacement(&staging, &target).unwrap();
            assert!(folder.join("model/tokenizer.model").exists());
        }
    }

    #[test]
    fn folder_in_place_of_a_file_changes_nothing() {
        let (folder, staging, target) = scratch();
        fs::remove_file(folder.join("model/model.safetensors")).unwrap();
        folder.write("model/model.safetensors/notes", "notes");
        let error = replace_folder(&staging, &target, is_own).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`model.safetensors` is a folder"),
            "{error}"
        );
        assert!(!has_journal(&staging));
        assert_eq!(fs::read_to_string(target.join(CONFIG)).unwrap(), "old");
    }

    #[test]
    fn failed_write_names_the_final_path_and_leaves_nothing() {
        let folder = TempDir::new();
        let target = folder.join("step-1");
        let fill = |new: &Path| {
            let path = new.join("model.safetensors");
            Err(Error::io(path)(ErrorKind::FileTooLarge.into()))
        };
        let error = write_folder_beside(&target, is_own, fill).unwrap_err();
        let expected = target.join("model.safetensors");
        assert_eq!(error.path(), Some(expected.as_path()));
        assert!(folder.names().is_empty());
    }

    #[test]
    fn written_folder_keeps_other_files_and_leaves_no_staging() {
        let (folder, _, target) = scratch();
        let fill = |new: &Path| {
            for name in ["config.json", "model.safetensors"] {
                write_synced(&new.join(name), "new")?;
            }
            Ok(())
        };
        write_folder_beside(&target, is_own, fill).unwrap();
        assert_replaced(&folder);
        write_folder_beside(&folder.join("fresh"), is_own, fill).unwrap();
        assert_eq!(folder.files("fresh").len(), 2);
        assert_eq!(folder.names(), ["fresh", "model"]);
    }
}
