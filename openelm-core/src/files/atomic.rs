//! Atomic writes of files: a file is written beside its place, then renamed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::paths::{check_replaceable, parent, partial_path, removed_path, resolve};
use crate::error::{Error, Result};

/// Writes `contents` to a file beside `path`, flushes it to the disk and renames it. A link at
/// `path` is followed.
///
/// # Errors
/// [`Error::Destination`] for a device, a pipe or a socket, [`Error::Io`]; an existing file at
/// `path` stays.
pub fn write_file(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    write_beside(path, |partial| {
        fs::write(partial, contents).map_err(Error::io(path))
    })
}

/// Calls `write` with a path beside `path`, flushes the file there to the disk and renames it. A
/// link at `path` is followed.
///
/// # Errors
/// The errors of `write`, and as [`write_file`]; an existing file at `path` stays.
pub(crate) fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let place = resolve(path)?;
    check_replaceable(&place)?;
    let partial = partial_path(&place);
    let written = remove(&partial)
        .and_then(|()| write(&partial))
        .and_then(|()| sync(&partial).map_err(Error::io(path)))
        .and_then(|()| fs::rename(&partial, &place).map_err(Error::io(path)));
    if written.is_err() {
        // The disk may be full: remove the partial file.
        let _ = remove(&partial);
    }
    written
}

/// Writes `contents` to `path` and flushes them to the disk.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_synced(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents)
        .and_then(|()| sync(path))
        .map_err(Error::io(path))
}

/// Copies a file's contents and flushes the copy to the disk. The copy has the default permissions
/// of the user, not the permissions of the original.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    let mut copy = File::create(to).map_err(Error::io(to))?;
    io::copy(&mut source, &mut copy)
        .and_then(|_| copy.sync_all())
        .map_err(Error::io(to))
}

/// Removes a folder: it is renamed first, so that a folder with its name is always complete.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    let removed = removed_path(folder);
    remove(&removed)?;
    fs::rename(folder, &removed).map_err(Error::io(folder))?;
    remove(&removed)
}

/// Removes a file or folder, if there is one. Links are not followed.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Flushes a file, and the name of a new file in its folder.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    // Some file systems cannot flush a folder.
    let _ = File::open(parent(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn failed_write_keeps_the_old_file() {
        let folder = TempDir::new();
        let path = folder.write("a.json", "old");
        folder.write("a.json.partial", "the user's");
        folder.write(".a.json.openelm-partial", "of a killed run");
        let failed = write_beside(&path, |partial| {
            fs::write(partial, "half").unwrap();
            Err(Error::Cancelled)
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert_eq!(folder.names(), ["a.json", "a.json.partial"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        write_file(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let other = fs::read_to_string(folder.join("a.json.partial")).unwrap();
        assert_eq!(other, "the user's");
    }

    #[cfg(unix)]
    #[test]
    fn only_files_are_replaced() {
        use std::os::unix::{fs::symlink, net::UnixListener};
        let folder = TempDir::new();
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink("socket", folder.join("link.json")).unwrap();
        for name in ["socket", "link.json"] {
            let error = write_file(folder.join(name), "new").unwrap_err();
            assert!(matches!(&error, Error::Destination { path, .. } if *path == socket));
            let expected = "a device, a pipe or a socket, expected a file";
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(!fs::metadata(&socket).unwrap().is_file());
        assert_eq!(folder.names(), ["link.json", "socket"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_permissions_are_the_users() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = TempDir::new();
        let real = folder.write("there/real.json", "old");
        symlink("there/real.json", folder.join("link.json")).unwrap();
        write_file(folder.join("link.json"), "new").unwrap();
        assert!(folder.join("link.json").is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(folder.files("there").len(), 1);

        fs::set_permissions(&real, PermissionsExt::from_mode(0o400)).unwrap();
        copy_synced(&real, &folder.join("copy")).unwrap();
        fs::write(folder.join("plain"), "").unwrap();
        let mode = |name: &str| {
            fs::metadata(folder.join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("copy"), mode("plain"));
    }
}
