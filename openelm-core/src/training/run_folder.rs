//! The folder of a run: its lock, and the rule that a run replaces only files of a run.

use std::path::{Path, PathBuf};

use super::state::STATE_FILE;
use crate::{
    error::{Error, Remedy, Result},
    files::{
        Activity, CreatedFolders, LOCK_FILE, WriteLock, check_replaceable, is_run_lock, remove,
        remove_leftovers, resolve,
    },
};

/// Files that every run writes, or `openelm` after it.
const WRITES: [&str; 4] = ["metrics.jsonl", "loss.svg", "loss.png", STATE_FILE];
/// Files of models and adapters of other programs, beside which a run's files would be read as one
/// mixed folder.
const FOREIGN: [&str; 5] = [
    "adapters.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "model.safetensors",
];
/// Folders of a run in which a killed run may leave temporary files.
const FOLDERS: [&str; 3] = ["", "best", "checkpoints"];

/// The locked folder of a run.
#[derive(Debug)]
pub(super) struct RunFolder {
    /// The folder behind links.
    place: PathBuf,
    lock: WriteLock,
    created: CreatedFolders,
    /// The files and folders of a new run that did not exist before it.
    new: Vec<&'static str>,
}

impl RunFolder {
    /// Creates and locks the folder of a new run, which writes `writes` in addition to the files of
    /// every run.
    ///
    /// # Errors
    /// [`Error::Destination`] if another process writes there, or the folder holds a run or a file
    /// that no run wrote and the run would replace; [`Error::Io`].
    pub(super) fn begin(folder: &Path, writes: &'static [&'static str]) -> Result<Self> {
        let place = resolve(folder)?;
        if let Some(name) = foreign(&place, writes) {
            return Err(Error::destination(
                folder,
                format!("contains `{name}`, which is not of a run: choose another folder"),
            ));
        }
        let created = CreatedFolders::create(&place)?;
        let mut lock = WriteLock::acquire(folder, Activity::Training)?;
        let state = folder.join(STATE_FILE);
        if state.exists() {
            lock.discard();
            let error = Error::destination(state, "there is a run here already");
            return Err(error.with_remedy(Remedy::Resume));
        }
        let names = WRITES.iter().chain(writes).copied();
        let new = names.filter(|name| !place.join(name).exists()).collect();
        Self::locked(place, lock, created, new)
    }

    /// Locks the folder of a saved run.
    ///
    /// # Errors
    /// [`Error::Destination`] if another process writes there, [`Error::Io`].
    pub(super) fn resume(folder: &Path) -> Result<Self> {
        let place = resolve(folder)?;
        let lock = WriteLock::acquire(folder, Activity::Training)?;
        Self::locked(place, lock, CreatedFolders::default(), Vec::new())
    }

    fn locked(
        place: PathBuf,
        lock: WriteLock,
        mut created: CreatedFolders,
        new: Vec<&'static str>,
    ) -> Result<Self> {
        for name in WRITES.iter().chain(&FOREIGN) {
            check_replaceable(&place.join(name))?;
        }
        for name in FOLDERS {
            remove_leftovers(&place.join(name))?;
        }
        created.keep();
        Ok(Self {
            place,
            lock,
            created,
            new,
        })
    }

    /// Removes the files that a new run wrote, and the folders that it created.
    pub(super) fn discard(mut self) {
        for name in &self.new {
            // The run's own error is more important.
            let _ = remove(&self.place.join(name));
        }
        self.lock.discard();
        drop(self.lock);
        self.created.remove();
    }
}

/// A file or folder of this run's names, if no run of this crate wrote in `folder`.
fn foreign(folder: &Path, writes: &'static [&'static str]) -> Option<&'static str> {
    if folder.join(STATE_FILE).exists() || is_run_lock(&folder.join(LOCK_FILE)) {
        return None;
    }
    let names = WRITES.iter().chain(&FOREIGN).chain(writes);
    let mut names = names.copied().filter(|name| *name != STATE_FILE);
    names.find(|name| folder.join(name).symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn files_of_other_programs_are_refused() {
        let writes: &[&str] = &["best", "checkpoints"];
        for name in FOREIGN.iter().chain(&WRITES[..3]).chain(writes) {
            let folder = TempDir::new();
            folder.write(&format!("run/{name}"), "theirs");
            let error = RunFolder::begin(&folder.join("run"), writes).unwrap_err();
            let expected = format!("contains `{name}`, which is not of a run");
            assert!(error.to_string().contains(&expected), "{error}");
            assert_eq!(folder.files("run").len(), 1);
        }
    }

    #[test]
    fn refused_folder_of_a_saved_run_is_unchanged() {
        let folder = TempDir::new();
        folder.write(STATE_FILE, "");
        RunFolder::begin(&folder, &[]).unwrap_err();
        assert_eq!(folder.names(), [STATE_FILE]);
    }

    #[test]
    fn files_of_a_killed_run_are_replaced() {
        let folder = TempDir::new();
        drop(RunFolder::begin(&folder, &[]).unwrap());
        for name in WRITES.iter().filter(|name| **name != STATE_FILE) {
            folder.write(name, "of the killed run");
        }
        folder.write("notes.txt", "");
        folder.write(".adapters.safetensors.openelm-partial", "half");
        folder.write("checkpoints/.step-000002.openelm-removed/config.json", "");
        drop(RunFolder::begin(&folder, &[]).unwrap());
        let expected = [
            "checkpoints",
            "loss.png",
            "loss.svg",
            "metrics.jsonl",
            "notes.txt",
            LOCK_FILE,
        ];
        assert_eq!(folder.names(), expected);
        let left = fs::read_dir(folder.join("checkpoints")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[cfg(unix)]
    #[test]
    fn errors_name_the_given_folder() {
        let folder = TempDir::new();
        let _run = RunFolder::begin(&folder.join("run"), &[]).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink("run", &link).unwrap();
        for error in [RunFolder::begin(&link, &[]), RunFolder::resume(&link)] {
            assert_eq!(error.unwrap_err().path(), Some(link.as_path()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_to_devices_are_refused() {
        use std::os::unix::{fs::symlink, net::UnixListener};
        let folder = TempDir::new();
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for name in WRITES.iter().chain(&FOREIGN).chain(&[LOCK_FILE]) {
            folder.write(&format!("{name}-run/{LOCK_FILE}"), "1\n");
            let run = folder.join(format!("{name}-run"));
            let link = run.join(name);
            remove(&link).unwrap();
            symlink(&socket, &link).unwrap();
            let error = RunFolder::resume(&run).unwrap_err();
            assert!(matches!(&error, Error::Destination { path, .. } if *path == link));
            assert!(error.to_string().contains("a device"), "{error}");
            assert!(!fs::metadata(&link).unwrap().is_file());
        }
    }

    #[test]
    fn failed_run_removes_only_what_it_created() {
        let folder = TempDir::new();
        let run = RunFolder::begin(&folder.join("a/b"), &["best"]).unwrap();
        folder.write("a/b/metrics.jsonl", "");
        folder.write("a/b/best/config.json", "");
        run.discard();
        assert!(folder.names().is_empty());

        folder.write("used/notes.txt", "");
        let run = RunFolder::begin(&folder.join("used"), &["best"]).unwrap();
        folder.write("used/metrics.jsonl", "");
        run.discard();
        assert_eq!(folder.files("used").len(), 1);
    }
}
