//! The lock of a run folder: one process at a time trains in it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

use crate::error::{Error, Result};

/// The lock file in the run's folder. It is never removed: another process could lock a removed
/// file at the same time.
pub(super) const LOCK_FILE: &str = "run.lock";

/// The lock of a folder. The system releases it when the process ends.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks `folder`.
    ///
    /// # Errors
    /// [`Error::Destination`] with the process that holds the lock, [`Error::Io`].
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(folder, file)),
            // Some network file systems do not support locks: training is still allowed there.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
        }
        let id = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{id}"))
            .map_err(Error::io(&path))?;
        Ok(Self { _file: file })
    }
}

fn held(folder: &Path, mut file: File) -> Error {
    let mut text = String::new();
    // Some systems do not allow a locked file to be read.
    let read = file.read_to_string(&mut text);
    let holder = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(id)) => format!("process {id}"),
        _ => "another process".to_owned(),
    };
    Error::Destination {
        path: folder.to_path_buf(),
        problem: format!("{holder} is training here: wait for its end, or choose another folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_folder_names_the_process_until_dropped() {
        let folder = openelm_testing::TempDir::new();
        let lock = RunLock::acquire(&folder).unwrap();
        let error = RunLock::acquire(&folder).unwrap_err().to_string();
        let holder = format!("process {} is training here", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(lock);
        RunLock::acquire(&folder).unwrap();
    }
}
