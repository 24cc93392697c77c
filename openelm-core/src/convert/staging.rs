//! The temporary place of a result: a hidden folder beside the target. At the end its file is
//! renamed, or its files replace the files of the target folder. An incomplete conversion leaves the
//! target unchanged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::target::{Kind, check_apart, check_target};
use crate::{
    error::{Error, Result},
    files::{
        Activity, CreatedFolders, LOCK_FILE, WriteLock, finish_replacement, has_journal,
        new_folder, parent, partial_path, remove, replace_folder, resolve,
    },
    weights::is_model_file,
};

/// A result in progress. Dropping it removes its files.
pub(super) struct Staging {
    /// The target, as given.
    target: PathBuf,
    /// The target behind links.
    place: PathBuf,
    folder: PathBuf,
    /// The kind of the result: a folder, or a file in the hidden folder.
    kind: Kind,
    force: bool,
    /// The lock of the hidden folder, which prevents another conversion to the same target.
    _lock: WriteLock,
    /// The lock of an existing target folder.
    target_lock: Option<WriteLock>,
    /// The folders that contain the target, if they are new.
    parents: CreatedFolders,
}

impl Staging {
    /// Checks the target of the kind `kind`, and creates an empty folder beside it. Missing
    /// folders that contain the target are created.
    pub(super) fn begin(source: &Path, target: &Path, kind: Kind, force: bool) -> Result<Self> {
        let place = resolve(target)?;
        if place.file_name().and_then(|name| name.to_str()).is_none() {
            return Err(Error::destination(
                target,
                "expected a path that ends in a name in UTF-8",
            ));
        }
        check_apart(source, target)?;
        let folder = partial_path(&place);
        // The changes of a killed run come before the check.
        if !has_journal(&folder) && !replaced(&place).exists() {
            check_target(target, &place, kind, force)?;
        }
        let parents = CreatedFolders::create(parent(&place))?;
        let no_room = |error: io::Error| {
            let problem = format!("cannot write {} beside it: {error}", folder.display());
            Error::destination(target, problem)
        };
        fs::create_dir_all(&folder).map_err(no_room)?;
        let lock =
            WriteLock::of_folder(&folder, Activity::Writing).map_err(|error| match error {
                Error::Destination { problem, .. } => Error::destination(target, problem),
                Error::Io { source, .. } => no_room(source),
                other => other,
            })?;
        let mut staging = Self {
            target: target.to_path_buf(),
            place,
            folder,
            kind,
            force,
            _lock: lock,
            target_lock: None,
            parents,
        };
        staging.recover()?;
        staging.check()?;
        staging.clear()?;
        if kind == Kind::Folder {
            let new = staging.written();
            fs::create_dir(&new).map_err(Error::io(&new))?;
        }
        Ok(staging)
    }

    /// The final path of the result, for errors.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// The path to write to, and to read from until the result is kept.
    pub(super) fn written(&self) -> PathBuf {
        match self.kind {
            Kind::Folder => new_folder(&self.folder),
            Kind::Gguf => self.folder.join("model.gguf"),
            Kind::Torch => self.folder.join("model.pt"),
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

    /// Moves the result to the target's path. Files of an existing folder that do not belong to its
    /// model stay.
    pub(super) fn keep(mut self) -> Result<()> {
        self.check()?;
        if self.kind != Kind::Folder {
            let written = self.written();
            fs::rename(written, &self.place).map_err(Error::io(&self.target))?;
        } else {
            replace_folder(&self.folder, &self.place, is_model_file)?;
        }
        self.parents.keep();
        Ok(())
    }

    /// Checks the target and locks it, if it is a folder.
    fn check(&mut self) -> Result<()> {
        check_target(&self.target, &self.place, self.kind, self.force)?;
        self.lock_target()
    }

    /// Locks an existing target folder: a run may train in it.
    fn lock_target(&mut self) -> Result<()> {
        if self.target_lock.is_none() && self.place.is_dir() {
            let lock = WriteLock::of_folder(&self.target, Activity::Writing)?;
            self.target_lock = Some(lock);
        }
        Ok(())
    }

    /// Finishes the changes of a killed run.
    fn recover(&mut self) -> Result<()> {
        if has_journal(&self.folder) {
            self.lock_target()?;
            finish_replacement(&self.folder, &self.place)?;
        }
        // Version 0.1 ended between two renames.
        let replaced = replaced(&self.place);
        if replaced.exists() && !self.place.exists() {
            fs::rename(&replaced, &self.place).map_err(Error::io(&replaced))?;
        }
        Ok(())
    }

    /// Removes the files of a killed run.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            if path.file_name() != Some(LOCK_FILE.as_ref()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a failed replacement, the next run finishes it.
        if !has_journal(&self.folder) {
            // The error cannot be reported; the next run removes the folder.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The path of the old result during the replacement by version 0.1.
fn replaced(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.replaced"))
}

#[cfg(test)]
mod tests;
