//! Where a result is written until it is whole: a hidden folder beside the target, renamed at the
//! end. Whatever ends a conversion before that leaves the target as it was.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// A result being written. Dropping it removes what was written.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// Holds off another conversion to the same target; the system lets go of it whatever happens.
    lock: Option<File>,
}

impl Staging {
    /// Checks the target and makes an empty folder beside it.
    pub(super) fn begin(source: &Path, target: &Path, force: bool) -> Result<Self> {
        let name = target.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(refused(
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
            return Err(refused(parent, "not a folder"));
        }
        let replaced = parent.join(format!(".{name}.replaced"));
        // A run that ended between the two renames of `keep`.
        if !target.exists() && replaced.exists() {
            fs::rename(&replaced, target).map_err(Error::io(&replaced))?;
        }
        check_apart(source, target)?;
        if let Ok(found) = fs::symlink_metadata(target) {
            if !force {
                return Err(refused(target, "exists; --force replaces it"));
            }
            let is_model = target.join("config.json").is_file();
            if found.is_dir() && !is_model && !is_empty(target)? {
                return Err(refused(target, "a folder with other things than a model"));
            }
        }
        let folder = parent.join(format!(".{name}.partial"));
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock = folder.join("lock");
        let file = File::create(&lock).map_err(Error::io(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused(target, "another conversion is writing it"));
            }
            // File systems without locks exist; two conversions to one target are rare.
            Err(TryLockError::Error(_)) => {}
        }
        let staging = Self {
            target: target.to_path_buf(),
            folder,
            lock: Some(file),
        };
        staging.clear()?;
        Ok(staging)
    }

    /// The folder to write to. It becomes the target, or the file of the target's name in it does.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where to write a target that is one file.
    pub(super) fn file(&self) -> PathBuf {
        self.folder
            .join(self.target.file_name().unwrap_or_default())
    }

    /// Puts the result in the target's place.
    pub(super) fn keep(mut self, is_file: bool) -> Result<()> {
        let written = if is_file {
            self.file()
        } else {
            let lock = self.folder.join("lock");
            fs::remove_file(&lock).map_err(Error::io(lock))?;
            self.folder.clone()
        };
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
        if is_file {
            remove(&self.folder)?;
        }
        remove(&hidden)
    }

    /// Removes what a run that was killed has left.
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
            // There is nobody left to tell, and the next run tries again.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Refuses a target that is the source, or in it, or holds it.
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
        return Err(refused(target, "the source and the target are the same"));
    }
    if place.starts_with(&source) || source.starts_with(&place) {
        return Err(refused(
            target,
            "one of source and target lies in the other",
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

fn refused(path: &Path, problem: &str) -> Error {
    Error::Target {
        path: path.to_path_buf(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("openelm-staging-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("source")).unwrap();
            Self(path)
        }

        fn begin(&self, target: &str, force: bool) -> Result<Staging> {
            Staging::begin(&self.0.join("source"), &self.0.join(target), force)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
            let mut names: Vec<_> = entries.map(name).collect();
            names.sort();
            names
                .into_iter()
                .map(|name| name.into_string().unwrap())
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_a_whole_result_is_kept() {
        let scratch = Scratch::new("whole");
        let staging = scratch.begin("model", false).unwrap();
        fs::write(staging.folder().join("config.json"), "1").unwrap();
        drop(staging);
        assert_eq!(scratch.names(), ["source"]);

        let staging = scratch.begin("model", false).unwrap();
        fs::write(staging.folder().join("config.json"), "2").unwrap();
        staging.keep(false).unwrap();
        assert_eq!(scratch.names(), ["model", "source"]);
        let written = || fs::read_to_string(scratch.0.join("model/config.json")).unwrap();
        assert_eq!(written(), "2");

        let staging = scratch.begin("model", true).unwrap();
        fs::write(staging.folder().join("config.json"), "3").unwrap();
        assert_eq!(written(), "2");
        staging.keep(false).unwrap();
        assert_eq!((written().as_str(), scratch.names().len()), ("3", 2));

        let staging = scratch.begin("model.gguf", false).unwrap();
        fs::write(staging.file(), "4").unwrap();
        staging.keep(true).unwrap();
        assert_eq!(scratch.names(), ["model", "model.gguf", "source"]);
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let scratch = Scratch::new("killed");
        fs::create_dir_all(scratch.0.join(".model.partial/sub")).unwrap();
        fs::write(scratch.0.join(".model.partial/model.safetensors"), "half").unwrap();
        fs::create_dir_all(scratch.0.join(".model.replaced")).unwrap();
        fs::write(scratch.0.join(".model.replaced/config.json"), "old").unwrap();
        let message = scratch.begin("model", false).err().unwrap().to_string();
        assert!(
            message.ends_with("exists; --force replaces it"),
            "{message}"
        );
        let staging = scratch.begin("model", true).unwrap();
        assert_eq!(fs::read_dir(staging.folder()).unwrap().count(), 1);
        drop(staging);
        assert_eq!(scratch.names(), ["model", "source"]);
    }

    #[test]
    fn two_at_once_are_refused() {
        let scratch = Scratch::new("two");
        let _first = scratch.begin("model", false).unwrap();
        let message = scratch.begin("model", false).err().unwrap().to_string();
        assert!(
            message.ends_with("another conversion is writing it"),
            "{message}"
        );
        assert!(scratch.0.join(".model.partial/lock").is_file());
    }

    #[test]
    fn targets_that_would_lose_something_are_refused() {
        let scratch = Scratch::new("lose");
        let message = |target, force| scratch.begin(target, force).err().unwrap().to_string();
        assert!(message("source", true).ends_with("are the same"));
        assert!(message("source/model", true).ends_with("lies in the other"));
        fs::create_dir_all(scratch.0.join("photos")).unwrap();
        fs::write(scratch.0.join("photos/1.jpg"), "").unwrap();
        assert!(message("photos", true).ends_with("other things than a model"));
        assert!(message("no/such/folder", true).contains("no/such"));
        assert!(message("source/..", true).contains("ends in a name"));
    }
}
