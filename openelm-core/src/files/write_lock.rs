//! The write lock of a folder: one process at a time writes in it.
//!
//! A training run, a conversion, an adapter and a tokenizer take the same lock. The system releases
//! it when the process ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    atomic::remove,
    paths::{partial_path, resolve},
};
use crate::error::{Error, Result};

/// Name of the lock file. It contains the process that holds the lock, or held it last.
pub(crate) const LOCK_FILE: &str = "run.lock";

/// The purpose of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// A training run. Its lock file stays in the folder and identifies the folder as a run's.
    Training,
    /// Any other output. The lock file is removed at the end, unless it is a run's.
    Writing,
}

/// The lock of a folder.
#[derive(Debug)]
pub(crate) struct WriteLock {
    file: File,
    path: PathBuf,
    /// True if the lock file is removed on drop.
    removes: bool,
    /// True if this value created the lock file.
    created: bool,
}

impl WriteLock {
    /// Locks `folder`, which exists.
    ///
    /// # Errors
    /// [`Error::Destination`] with the process that holds the lock, or that converts a model to
    /// this folder; [`Error::Io`].
    pub(crate) fn acquire(folder: &Path, activity: Activity) -> Result<Self> {
        let place = resolve(folder)?;
        // A conversion to a folder that did not exist when the conversion began.
        let beside = partial_path(&place).join(LOCK_FILE);
        if let Ok(file) = File::open(beside)
            && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            return Err(held(folder, file));
        }
        Self::of_folder(folder, activity)
    }

    /// Like [`acquire`](Self::acquire), for a process that converts a model to this folder.
    ///
    /// # Errors
    /// [`Error::Destination`] with the process that holds the lock, or with a file of another program
    /// in place of the lock file; [`Error::Io`].
    pub(crate) fn of_folder(folder: &Path, activity: Activity) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        check_lock_file(&path)?;
        let (file, created) = loop {
            let existed = path.exists();
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&path).map_err(Error::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(folder, file)),
                // Some network file systems have no locks: writing is still allowed there.
                Err(TryLockError::Error(_)) => break (file, !existed),
            }
            // The process that held the lock may have removed the file.
            if is_at(&file, &path) {
                break (file, !existed);
            }
        };
        let marks_run = !created && is_run_lock(&path);
        let id = std::process::id();
        let text = match (activity, marks_run) {
            (Activity::Training, _) => format!("{id}\n"),
            (Activity::Writing, true) => format!("{id} {WRITING} {IN_RUN}\n"),
            (Activity::Writing, false) => format!("{id} {WRITING}\n"),
        };
        let mut lock = Self {
            file,
            path,
            removes: activity == Activity::Writing && !marks_run,
            created,
        };
        if let Err(error) = lock.write(&text) {
            lock.discard();
            return Err(Error::io(&lock.path)(error));
        }
        Ok(lock)
    }

    /// Replaces the text. Cut after it: a process that is killed here never empties the file.
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }

    /// Removes the lock file on drop, if this value created it: the run has left nothing else.
    pub(crate) fn discard(&mut self) {
        self.removes = self.created;
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // No other process can hold a lock of this file: the lock is still held here.
        if self.removes && is_at(&self.file, &self.path) {
            let _ = remove(&self.path);
        }
    }
}

/// Refuses a file at `path` that no [`WriteLock`] wrote.
fn check_lock_file(path: &Path) -> Result<()> {
    let refuse = |problem: &str| Err(Error::destination(path, problem));
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            refuse("expected a lock file or nothing, found a folder, a device or a pipe")
        }
        Ok(_)
            if File::open(path)
                .and_then(contents)
                .is_ok_and(|text| !is_own(&text)) =>
        {
            refuse("a file of another program: remove it, or choose another folder")
        }
        // A file that cannot be read is an error of the lock.
        _ => Ok(()),
    }
}

/// True for the text of a lock file. Only the first line counts, see [`WriteLock::write`].
fn is_own(text: &str) -> bool {
    let mut words = text.lines().next().unwrap_or("").split_whitespace();
    let is_number = words.next().is_some_and(|id| id.parse::<u32>().is_ok());
    let rest: Vec<&str> = words.collect();
    // A loss of power leaves zeros.
    let is_blank = text.chars().all(|c| c == '\0');
    is_blank || is_number && matches!(*rest, [] | [WRITING] | [WRITING, IN_RUN])
}

/// True if `path` is the lock file of a training run. An empty one is of a process that was killed
/// before it wrote anything; only the first line counts, see [`WriteLock::write`].
pub(crate) fn is_run_lock(path: &Path) -> bool {
    // To open a FIFO would wait for a writer.
    if !path.is_file() {
        return false;
    }
    let Ok(text) = File::open(path).and_then(contents) else {
        return false;
    };
    let mut words = text.lines().next().unwrap_or("").split_whitespace();
    let names_process = words.next().is_some_and(|id| id.parse::<u32>().is_ok());
    is_own(&text) && names_process && !words.eq([WRITING])
}

/// Words in the lock file of an output that is not a run.
const WRITING: &str = "writing";
const IN_RUN: &str = "in-run";
/// Most bytes that are read of a lock file.
const MAX_CONTENTS: u64 = 64;

/// The text of a lock file, or the start of another file of its name.
fn contents(file: File) -> io::Result<String> {
    let mut text = Vec::new();
    file.take(MAX_CONTENTS).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn held(folder: &Path, file: File) -> Error {
    // Some systems do not allow a locked file to be read.
    let text = contents(file).unwrap_or_default();
    let mut words = text.split_whitespace();
    let holder = match words.next().map(str::parse::<u32>) {
        Some(Ok(id)) => format!("process {id}"),
        _ => "another process".to_owned(),
    };
    let activity = match words.next() {
        Some(_) => "writing",
        None => "training",
    };
    Error::destination(
        folder,
        format!("{holder} is {activity} here: wait for its end, or choose another folder"),
    )
}

/// True if the open `file` is the file at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    fn refused(folder: &Path) -> String {
        let error = WriteLock::acquire(folder, Activity::Writing).unwrap_err();
        assert!(matches!(error, Error::Destination { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn files_of_other_programs_are_not_locks() {
        for text in [
            "mine",
            "dependencies: 7",
            "7 locks",
            "-7",
            "7 writing here",
            "\n7",
        ] {
            let folder = TempDir::new();
            let path = folder.write(LOCK_FILE, text);
            for activity in [Activity::Training, Activity::Writing] {
                let error = WriteLock::acquire(&folder, activity).unwrap_err();
                assert!(matches!(error, Error::Destination { .. }), "{error}");
                assert!(error.to_string().contains(LOCK_FILE), "{error}");
            }
            assert!(!is_run_lock(&path), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_to_other_files_are_not_locks() {
        use std::os::unix::fs::symlink;
        for target in ["notes.txt", ".", "/dev/null", "/dev/zero"] {
            let folder = TempDir::new();
            let notes = folder.write("notes.txt", "notes");
            let path = folder.join(LOCK_FILE);
            symlink(target, &path).unwrap();
            assert!(!is_run_lock(&path), "{target}");
            assert!(refused(&folder).contains(LOCK_FILE), "{target}");
            assert!(path.is_symlink());
            assert_eq!(fs::read_to_string(notes).unwrap(), "notes");
        }
    }

    #[test]
    fn locked_folder_names_the_process_until_dropped() {
        let folder = TempDir::new();
        let id = std::process::id();
        let lock = WriteLock::acquire(&folder, Activity::Training).unwrap();
        let error = refused(&folder);
        assert!(
            error.contains(&format!("process {id} is training here")),
            "{error}"
        );
        drop(lock);
        assert!(is_run_lock(&folder.join(LOCK_FILE)));

        // Another writer keeps a run's lock file.
        let lock = WriteLock::acquire(&folder, Activity::Writing).unwrap();
        assert!(is_run_lock(&folder.join(LOCK_FILE)));
        let error = refused(&folder);
        assert!(
            error.contains(&format!("process {id} is writing here")),
            "{error}"
        );
        drop(lock);
        assert_eq!(folder.names(), [LOCK_FILE]);

        let other = TempDir::new();
        let lock = WriteLock::acquire(&other, Activity::Writing).unwrap();
        assert!(!is_run_lock(&other.join(LOCK_FILE)));
        drop(lock);
        assert!(other.names().is_empty());
    }

    /// The lock files of processes that were killed before, while and after they wrote the text.
    #[test]
    fn lock_file_of_a_killed_writer_is_not_of_a_run() {
        for (text, of_run) in [
            ("", false),
            ("\0\0\0", false),
            ("7 writing\n", false),
            ("7 writing\nng\n", false),
            ("7 writing in-run\n", true),
            ("7\nwriting\n", true),
            ("7\n123 writing\n", true),
            ("7\n", true),
        ] {
            let folder = TempDir::new();
            let file = folder.write(LOCK_FILE, text);
            assert_eq!(is_run_lock(&file), of_run, "{text:?}");
            drop(WriteLock::acquire(&folder, Activity::Writing).unwrap());
            assert_eq!(file.exists(), of_run, "{text:?}");
        }
    }

    #[test]
    fn removed_lock_file_is_not_a_lock() {
        let folder = TempDir::new();
        let first = WriteLock::acquire(&folder, Activity::Writing).unwrap();
        fs::remove_file(folder.join(LOCK_FILE)).unwrap();
        let second = WriteLock::acquire(&folder, Activity::Writing).unwrap();
        // The first lock is of another file and removes nothing.
        drop(first);
        assert!(refused(&folder).contains("is writing here"));
        drop(second);
        WriteLock::acquire(&folder, Activity::Training).unwrap();
    }
}
