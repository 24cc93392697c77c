//! Files and folders that may exist. A path that cannot be examined is an error, not absent.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// The kind of an existing path, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A pipe, a socket or a device.
    Other,
}

/// The kind of `path`; `None` if it does not exist.
///
/// # Errors
/// [`Error::Io`] if the system cannot examine it, [`Error::MissingFile`] for an empty path and for a
/// link to a path that does not exist.
pub(crate) fn path_kind(path: &Path) -> Result<Option<PathKind>> {
    if path.as_os_str().is_empty() {
        return Err(Error::missing_file(path, "the path is empty"));
    }
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(PathKind::File)),
        Ok(found) if found.is_dir() => Ok(Some(PathKind::Folder)),
        Ok(_) => Ok(Some(PathKind::Other)),
        // A path with a NUL names nothing.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        Err(_) => match fs::read_link(path) {
            Ok(target) => {
                let problem = format!("a link to `{}`, which does not exist", target.display());
                Err(Error::missing_file(path, problem))
            }
            Err(_) => Ok(None),
        },
    }
}

/// True for a folder, false if `path` is another thing or does not exist.
///
/// # Errors
/// As [`path_kind`].
pub(crate) fn is_folder(path: &Path) -> Result<bool> {
    Ok(path_kind(path)? == Some(PathKind::Folder))
}

/// True for a pipe: to open one without a writer would wait forever.
#[cfg(unix)]
pub(crate) fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// Without Unix, a folder holds no pipes.
#[cfg(not(unix))]
pub(crate) fn is_pipe(_path: &Path) -> bool {
    false
}

/// The folder of `file`: `.` for a bare name.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The first of `names` that is a file in `folder`.
///
/// # Errors
/// As [`path_kind`], if none is a file and one cannot be examined; [`Error::MissingFile`] if one is a
/// pipe, a socket or a device.
pub(crate) fn first_file(folder: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    let mut problem = None;
    for name in names {
        let path = folder.join(name);
        match path_kind(&path) {
            Ok(Some(PathKind::File)) => return Ok(Some(path)),
            Ok(Some(PathKind::Other)) => {
                let found = "expected a file, found a pipe, socket or device";
                problem = problem.or(Some(Error::missing_file(path, found)));
            }
            Ok(_) => {}
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(None), Err)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn only_a_missing_path_is_absent() {
        let folder = TempDir::new();
        let file = folder.write("file", "");
        symlink("nowhere", folder.join("broken")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        symlink("file", folder.join("link")).unwrap();
        let kind = |name: &str| path_kind(&folder.join(name));
        assert_eq!(kind("file").unwrap(), Some(PathKind::File));
        assert_eq!(kind("link").unwrap(), Some(PathKind::File));
        assert_eq!(path_kind(&folder).unwrap(), Some(PathKind::Folder));
        for absent in ["absent", "a\0b"] {
            assert_eq!(kind(absent).unwrap(), None);
        }
        assert_eq!(
            path_kind("/dev/null".as_ref()).unwrap(),
            Some(PathKind::Other)
        );
        let broken = kind("broken").unwrap_err();
        assert!(matches!(broken, Error::MissingFile { .. }), "{broken}");
        assert!(broken.to_string().contains("a link to `nowhere`"));
        let empty = path_kind("".as_ref()).unwrap_err();
        assert_eq!(empty.to_string(), r#""": the path is empty"#);
        let long = "x".repeat(300);
        for path in [folder.join("loop"), file.join("inside"), folder.join(long)] {
            let error = path_kind(&path).unwrap_err();
            assert!(matches!(error, Error::Io { path: at, .. } if at == path));
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_counts_only_without_a_file() {
        let folder = TempDir::new();
        symlink("nowhere", folder.join("first")).unwrap();
        let first = |names: &[&str]| first_file(&folder, names);
        assert!(first(&["first", "second"]).is_err());
        let second = folder.write("second", "");
        assert_eq!(first(&["first", "second"]).unwrap(), Some(second));
        assert_eq!(first(&["third"]).unwrap(), None);
        symlink("/dev/null", folder.join("fourth")).unwrap();
        let error = first(&["third", "fourth"]).unwrap_err().to_string();
        assert!(error.ends_with("found a pipe, socket or device"), "{error}");
        assert!(first(&["fourth", "second"]).unwrap().is_some());
    }
}
