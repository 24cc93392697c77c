//! The files of the cache compared with the hashes in their names.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    checksum::Checksum,
    listing::{CachedRepository, blobs_in, entries},
};
use crate::error::Error;

/// The files of a snapshot that are links to nothing, or whose bytes do not have the hash in their
/// name. Files without a hash in their name, as on file systems without links, are left out.
///
/// # Errors
/// [`Error::HubCache`] if a file cannot be read.
pub(crate) fn damaged(found: &CachedRepository) -> Result<Vec<PathBuf>, Error> {
    let mut blobs = BTreeSet::new();
    blobs_in(&found.path, &mut blobs);
    let mut damaged = Vec::new();
    broken_links(&found.path, &mut damaged);
    for (path, bytes) in blobs {
        let name = path.file_name().and_then(|name| name.to_str());
        let hash = name.and_then(Checksum::of_etag);
        let Some(expected) = hash.filter(|_| path.is_file()) else {
            continue;
        };
        let hash = |path: &PathBuf| -> io::Result<String> {
            let mut hasher = expected.begin(bytes);
            hasher.read(&mut File::open(path)?)?;
            Ok(hasher.finish())
        };
        if hash(&path).map_err(|error| Error::hub_cache(&path, error))? != expected.text() {
            damaged.push(path);
        }
    }
    Ok(damaged)
}

/// Adds the links in `folder` that lead nowhere.
fn broken_links(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => broken_links(&path, found),
            Ok(data) if data.is_symlink() && !path.exists() => found.push(path),
            _ => {}
        }
    }
}
