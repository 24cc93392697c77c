//! The temporary place of a result: a hidden folder beside the target, renamed at the end. An
//! incomplete conversion leaves the target unchanged.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::error::{Error, Remedy, Result};

/// A result in progress. Dropping it removes its files.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// True if the result is a file in the folder, not the folder itself.
    is_file: bool,
    /// Prevents another conversion to the same target; the system releases it with the process.
    lock: Option<File>,
}

impl Staging {
    /// Checks the target, a file if `is_file`, and creates an empty folder beside it.
    pub(super) fn begin(source: &Path, target: &Path, is_file: bool, force: bool) -> Result<Self> {
        let name = target.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(Error::destination(
                target,
                "expected a path that ends in a name in UTF-8",
            ));
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent_is = fs::metadata(parent).map_err(Error::io(parent))?;
        if !parent_is.is_dir() {
            return Err(Error::destination(parent, "not a folder"));
        }
        let replaced = parent.join(format!(".{name}.replaced"));
        // An earlier run ended between the two renames of `keep`.
        if !target.exists() && replaced.exists() {
            fs::rename(&replaced, target).map_err(Error::io(&replaced))?;
        }
        check_apart(source, target)?;
        if let Ok(found) = fs::symlink_metadata(target) {
            if !force {
                let problem = "exists, and replacing it was not requested";
                return Err(Error::destination(target, problem).with_remedy(Remedy::Force));
            }
            let is_model = target.join("config.json").is_file();
            if found.is_dir() && !is_model && !is_empty(target)? {
                return Err(Error::destination(
                    target,
                    "a folder that contains other files than a model",
                ));
            }
        }
        let folder = parent.join(format!(".{name}.partial"));
        let no_room = |error| {
            let problem = format!("cannot write {} beside it: {error}", folder.display());
            Error::destination(target, problem)
        };
        fs::create_dir_all(&folder).map_err(no_room)?;
        let file = File::create(folder.join("lock")).map_err(no_room)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::destination(
                    target,
                    "another conversion is writing it",
                ));
            }
            // Some file systems have no locks; two conversions to one target are rare.
            Err(TryLockError::Error(_)) => {}
        }
        let staging = Self {
            target: target.to_path_buf(),
            folder,
            is_file,
            lock: Some(file),
        };
        staging.clear()?;
        Ok(staging)
    }

    /// The final path of the result, for errors.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// The path to write to, and to read from until the result is kept.
    pub(super) fn written(&self) -> PathBuf {
        match (self.is_file, self.target.file_name()) {
            (true, Some(name)) => self.folder.join(name),
            _ => self.folder.clone(),
        }
    }

    /// Replaces the path of the hidden folder in an error by the target's path: the hidden folder
    /// is removed after an error.
    pub(super) fn of_target(&self, mut error: Error) -> Error {
        let written = self.written();
        if let Error::Io { path, .. }
        | Error::MissingFile { path, .. }
        | Error::Config { path, .. }
        | Error::Checkpoint { path, .. }
        | Error::MissingTensor { path, .. }
        | Error::UnexpectedTensor { path, .. }
        | Error::TensorShape { path, .. }
        | Error::TensorDtype { path, .. } = &mut error
            && let Ok(inner) = path.strip_prefix(&written)
        {
            // Joining an empty path would add a slash.
            *path = if inner.as_os_str().is_empty() {
                self.target.clone()
            } else {
                self.target.join(inner)
            };
        }
        if let Error::MissingFile { problem, .. } | Error::Checkpoint { problem, .. } = &mut error {
            let [written, target] = [&written, &self.target].map(|path| path.display().to_string());
            *problem = problem.replace(&written, &target);
        }
        error
    }

    /// Moves the result to the target's path.
    pub(super) fn keep(mut self) -> Result<()> {
        let written = self.written();
        if !self.is_file {
            fs::remove_file(self.folder.join("lock")).map_err(Error::io(&self.target))?;
        }
        let mut hidden = self.folder.clone();
        hidden.set_extension("replaced");
        let had_one = fs::symlink_metadata(&self.target).is_ok();
        if had_one {
            remove(&hidden)?;
            fs::rename(&self.target, &hidden).map_err(Error::io(&self.target))?;
        }
        if let Err(error) = fs::rename(&written, &self.target) {
            if had_one {
                fs::rename(&hidden, &self.target).map_err(Error::io(&self.target))?;
            }
            return Err(Error::io(&self.target)(error));
        }
        self.lock = None;
        if self.is_file {
            remove(&self.folder)?;
        }
        remove(&hidden)
    }

    /// Removes the files of a killed run.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            if path.file_name() != Some("lock".as_ref()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // The error cannot be reported; the next run removes the folder.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Refuses a target that is the source, inside it, or contains it.
fn check_apart(source: &Path, target: &Path) -> Result<()> {
    let source = fs::canonicalize(source).map_err(Error::io(source))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let place = fs::canonicalize(target).or_else(|_| {
        let parent = fs::canonicalize(parent)?;
        Ok(parent.join(target.file_name().unwrap_or_default()))
    });
    let place = place.map_err(Error::io(target))?;
    if place == source {
        return Err(Error::destination(
            target,
            "the source and the target are the same",
        ));
    }
    if place.starts_with(&source) || source.starts_with(&place) {
        return Err(Error::destination(
            target,
            "one of source and target is inside the other",
        ));
    }
    Ok(())
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .next()
        .is_none())
}

fn remove(path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let removed = if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    /// A folder that contains `source`.
    struct Scratch(TempDir);

    impl Scratch {
        fn new() -> Self {
            let folder = TempDir::new();
            fs::create_dir(folder.join("source")).unwrap();
            Self(folder)
        }

        fn begin(&self, target: &str, force: bool) -> Result<Staging> {
            let is_file = target.ends_with(".gguf");
            Staging::begin(&self.0.join("source"), &self.0.join(target), is_file, force)
        }
    }

    #[test]
    fn keeps_complete_results_only() {
        let scratch = Scratch::new();
        let staging = scratch.begin("model", false).unwrap();
        fs::write(staging.written().join("config.json"), "1").unwrap();
        drop(staging);
        assert_eq!(scratch.0.names(), ["source"]);

        let staging = scratch.begin("model", false).unwrap();
        fs::write(staging.written().join("config.json"), "2").unwrap();
        staging.keep().unwrap();
        assert_eq!(scratch.0.names(), ["model", "source"]);
        let written = || fs::read_to_string(scratch.0.join("model/config.json")).unwrap();
        assert_eq!(written(), "2");

        let staging = scratch.begin("model", true).unwrap();
        fs::write(staging.written().join("config.json"), "3").unwrap();
        assert_eq!(written(), "2");
        staging.keep().unwrap();
        assert_eq!((written().as_str(), scratch.0.names().len()), ("3", 2));

        let staging = scratch.begin("model.gguf", false).unwrap();
        fs::write(staging.written(), "4").unwrap();
        staging.keep().unwrap();
        assert_eq!(scratch.0.names(), ["model", "model.gguf", "source"]);
    }

    #[test]
    fn removes_leftovers_of_killed_run() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.0.join(".model.partial/sub")).unwrap();
        fs::write(scratch.0.join(".model.partial/model.safetensors"), "half").unwrap();
        fs::create_dir_all(scratch.0.join(".model.replaced")).unwrap();
        fs::write(scratch.0.join(".model.replaced/config.json"), "old").unwrap();
        let message = scratch.begin("model", false).err().unwrap().to_string();
        assert!(
            message.contains("exists, and replacing it was not requested"),
            "{message}"
        );
        let staging = scratch.begin("model", true).unwrap();
        assert_eq!(fs::read_dir(staging.written()).unwrap().count(), 1);
        drop(staging);
        assert_eq!(scratch.0.names(), ["model", "source"]);
    }

    #[test]
    fn errors_name_the_target_not_the_staging_folder() {
        let scratch = Scratch::new();
        let target = scratch.0.join("model");
        let staging = scratch.begin("model", false).unwrap();
        let shown = |staging: &Staging, path: PathBuf| {
            let error = Error::io(path)(std::io::ErrorKind::StorageFull.into());
            staging.of_target(error).to_string()
        };
        let config = staging.written().join("config.json");
        let full = shown(&staging, config);
        assert_eq!(
            full,
            format!("{}/config.json: no storage space", target.display())
        );
        let full = shown(&staging, staging.written());
        assert_eq!(full, format!("{}: no storage space", target.display()));
        // A path outside the hidden folder does not change.
        let source = scratch.0.join("source/config.json");
        let full = shown(&staging, source.clone());
        assert_eq!(full, format!("{}: no storage space", source.display()));

        let staging = scratch.begin("model.gguf", false).unwrap();
        let error = staging.of_target(Error::Checkpoint {
            path: staging.written(),
            problem: "cut".into(),
        });
        let file = scratch.0.join("model.gguf");
        assert_eq!(error.to_string(), format!("{}: cut", file.display()));
    }

    #[test]
    fn reports_file_in_place_of_staging_folder() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join(".model.partial"), "").unwrap();
        let message = scratch.begin("model", false).err().unwrap().to_string();
        let start = format!("{}: cannot write ", scratch.0.join("model").display());
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains(".model.partial beside it: "), "{message}");
        assert_eq!(scratch.0.names(), [".model.partial", "source"]);
    }

    #[test]
    fn rejects_concurrent_conversions() {
        let scratch = Scratch::new();
        let _first = scratch.begin("model", false).unwrap();
        let message = scratch.begin("model", false).err().unwrap().to_string();
        assert!(
            message.ends_with("another conversion is writing it"),
            "{message}"
        );
        assert!(scratch.0.join(".model.partial/lock").is_file());
    }

    #[test]
    fn rejects_targets_that_would_lose_files() {
        let scratch = Scratch::new();
        let message = |target, force| scratch.begin(target, force).err().unwrap().to_string();
        assert!(message("source", true).ends_with("are the same"));
        assert!(message("source/model", true).ends_with("inside the other"));
        fs::create_dir_all(scratch.0.join("photos")).unwrap();
        fs::write(scratch.0.join("photos/1.jpg"), "").unwrap();
        assert!(message("photos", true).ends_with("other files than a model"));
        assert!(message("no/such/folder", true).contains("no/such"));
        assert!(message("source/..", true).contains("ends in a name"));
    }
}
