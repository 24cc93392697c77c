//! Atomic writes: files and folders are written beside their place, then renamed.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::Path,
};

use crate::error::{Error, Result};

/// Calls `write` with a path beside `path`, flushes the file there to the disk and renames it.
///
/// # Errors
/// The errors of `write`, and [`Error::Io`]; an existing file at `path` stays.
pub(crate) fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = write(&partial)
        .and_then(|()| sync(&partial))
        .and_then(|()| fs::rename(&partial, path).map_err(Error::io(path)));
    if written.is_err() {
        // The disk may be full: remove the partial file.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Calls `fill` with an empty folder beside `folder` and renames it, replacing an existing folder.
///
/// # Errors
/// The errors of `fill`, and [`Error::Io`].
pub(crate) fn write_folder_beside(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut name = OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(".partial");
    let partial = folder.with_file_name(name);
    let written = make_empty(&partial)
        .and_then(|()| fill(&partial))
        .and_then(|()| {
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(Error::io(folder))?;
            }
            fs::rename(&partial, folder).map_err(Error::io(folder))
        });
    if written.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// Writes `contents` to `path` and flushes them to the disk.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_synced(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).map_err(Error::io(path))?;
    sync(path)
}

/// Copies a file and flushes the copy to the disk.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map_err(Error::io(to))?;
    sync(to)
}

fn make_empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io(folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::io(folder))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(path))
}
