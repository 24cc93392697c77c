//! Temporary names, links and absolute paths.

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Component, Path, PathBuf},
};

use super::{atomic::remove, replace_folder::finish_replacement};
use crate::error::{Error, Result};

/// End of the hidden name of a result in progress.
const PARTIAL: &str = ".openelm-partial";
/// End of the hidden name of a folder that is being deleted.
const REMOVED: &str = ".openelm-removed";
/// End of the hidden name of the progress of a long work.
const PROGRESS: &str = ".openelm-progress";
/// Most bytes of the name inside a hidden name; file systems allow 255 for all.
const LONGEST: usize = 200;
/// Most links in a chain, as in Linux.
const MOST_LINKS: usize = 40;

/// The path of a result in progress, beside `path`: `.NAME.openelm-partial`. It is the same in
/// every run, so that a run overwrites the leftover of a killed one.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    hidden(path, PARTIAL)
}

/// The folder of the progress of a long work, beside its result `path`:
/// `.NAME.openelm-progress`. It is kept between runs.
pub(crate) fn work_path(path: &Path) -> PathBuf {
    hidden(path, PROGRESS)
}

/// The path of the folder `path` during its deletion.
pub(super) fn removed_path(path: &Path) -> PathBuf {
    hidden(path, REMOVED)
}

/// True for a name of [`partial_path`] and of a folder in deletion.
fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(PARTIAL) || name.ends_with(REMOVED))
}

/// Removes the temporary files of dead runs from `folder`, which the caller has locked, and finishes
/// the replacement of a folder in it.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove_leftovers(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_leftover(name)) else {
            continue;
        };
        if let Some(name) = name.strip_prefix('.').and_then(|n| n.strip_suffix(PARTIAL)) {
            finish_replacement(&entry.path(), &folder.join(name))?;
        }
        remove(&entry.path())?;
    }
    Ok(())
}

/// The folder that contains `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Follows the links at `path`. The path behind them need not exist.
///
/// # Errors
/// [`Error::Io`] for links in a circle.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    // Without a final slash, which would follow a link.
    let mut found: PathBuf = path.components().collect();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&found) {
            Ok(next) => found = parent(&found).join(next).components().collect(),
            Err(_) => return Ok(found),
        }
    }
    let problem = io::Error::other("too many levels of symbolic links");
    Err(Error::io(path)(problem))
}

/// Refuses a device, a pipe or a socket at `place`, links followed: a file that is renamed to it
/// would delete it.
///
/// # Errors
/// [`Error::Destination`].
pub(crate) fn check_replaceable(place: &Path) -> Result<()> {
    match fs::metadata(place) {
        Ok(found) if !found.is_file() && !found.is_dir() => Err(Error::destination(
            place,
            "a device, a pipe or a socket, expected a file or a new path",
        )),
        _ => Ok(()),
    }
}

/// The absolute path of `path` without links and `..`. The path need not exist.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn real(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::destination(path, "the path is empty"));
    }
    let path = std::path::absolute(resolve(path)?).map_err(Error::io(path))?;
    let mut found = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = found.pop(),
            other => found.push(other),
        }
        if let Ok(there) = fs::canonicalize(&found) {
            found = there;
        }
    }
    Ok(found)
}

fn hidden(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut hidden = OsString::from(".");
    if name.len() <= LONGEST {
        hidden.push(name);
    } else {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let start: String = name.to_string_lossy().chars().take(LONGEST / 8).collect();
        hidden.push(format!("{start}-{:016x}", hasher.finish()));
    }
    hidden.push(end);
    path.with_file_name(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn temporary_names_are_hidden_and_short() {
        let partial = partial_path(Path::new("a/model.gguf"));
        assert_eq!(partial, Path::new("a/.model.gguf.openelm-partial"));
        let long = partial_path(Path::new(&"長".repeat(80)));
        assert!(long.file_name().unwrap().len() < 200);
        assert_ne!(long, partial_path(Path::new(&"長".repeat(81))));
        assert!(is_leftover(long.to_str().unwrap()));
        assert!(!is_leftover("model.openelm-partial"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_to_missing_files() {
        use std::os::unix::fs::symlink;
        let folder = TempDir::new();
        let at = |name: &str| folder.join(name);
        fs::create_dir(at("there")).unwrap();
        symlink("there/new", at("one")).unwrap();
        symlink("one", at("two")).unwrap();
        assert_eq!(resolve(&at("two/")).unwrap(), at("there/new"));
        symlink("circle", at("circle")).unwrap();
        let error = resolve(&at("circle")).unwrap_err().to_string();
        assert!(error.contains("too many levels"), "{error}");
        symlink("there", at("link")).unwrap();
        let expected = fs::canonicalize(at("there")).unwrap().join("x");
        assert_eq!(real(&at("link/y/../x")).unwrap(), expected);
        assert_eq!(real(&at("link/../link/x")).unwrap(), expected);
    }
}
