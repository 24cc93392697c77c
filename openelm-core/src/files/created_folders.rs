//! Folders that a command creates, and removes if it fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Folders that were created. Dropping the value removes those that are empty, unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct CreatedFolders {
    /// Outermost first.
    folders: Vec<PathBuf>,
    kept: bool,
}

impl CreatedFolders {
    /// Creates `folder` and the folders that contain it, if they do not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        Self::check(folder)?;
        let missing = folder.ancestors().take_while(|folder| {
            let is_named = !folder.as_os_str().is_empty();
            is_named && !folder.exists()
        });
        let mut missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        let mut created = Self::default();
        for folder in missing {
            match fs::create_dir(&folder) {
                Ok(()) => created.folders.push(folder),
                // Another process created it, or the path ends in `..`.
                Err(_) if folder.is_dir() => {}
                Err(error) => return Err(Error::io(folder)(error)),
            }
        }
        Ok(created)
    }

    /// Refuses a path at or inside a file.
    ///
    /// # Errors
    /// [`Error::Destination`] with the file.
    pub(crate) fn check(folder: &Path) -> Result<()> {
        match folder.ancestors().find(|folder| folder.exists()) {
            Some(found) if !found.is_dir() => Err(Error::destination(found, "not a folder")),
            _ => Ok(()),
        }
    }

    /// Keeps the folders.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Removes the folders that are empty, even if they were kept.
    pub(crate) fn remove(&self) {
        for folder in self.folders.iter().rev() {
            // Fails for a folder that is not empty.
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Drop for CreatedFolders {
    fn drop(&mut self) {
        if !self.kept {
            self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn empty_folders_are_removed_unless_kept() {
        let folder = TempDir::new();
        let create = |name: &str| CreatedFolders::create(&folder.join(name)).unwrap();
        let created = create("a/b/c");
        assert!(folder.join("a/b/c").is_dir());
        fs::write(folder.join("a/used"), "").unwrap();
        drop(created);
        assert!(folder.join("a").is_dir() && !folder.join("a/b").exists());
        let mut created = create("a/d");
        created.keep();
        drop(created);
        drop(create("a/d"));
        assert!(folder.join("a/d").is_dir());
        for name in ["a/used", "a/used/b"] {
            let error = CreatedFolders::create(&folder.join(name)).unwrap_err();
            assert!(error.to_string().ends_with("used: not a folder"), "{error}");
        }
    }
}
