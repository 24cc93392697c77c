//! The contents of the cache.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    cache::{Cache, commit_in},
    repository::{RepoType, Repository, is_commit},
};

/// A snapshot in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedRepository {
    /// Kind.
    pub(crate) kind: RepoType,
    /// `owner/name`.
    pub(crate) id: String,
    /// Branches and tags of the commit.
    pub(crate) revisions: Vec<String>,
    /// Commit.
    pub(crate) commit: String,
    /// Bytes of the files.
    pub(crate) bytes: u64,
    /// Number of files.
    pub(crate) files: usize,
    /// Folder with the files.
    pub(crate) path: PathBuf,
}

/// The snapshots in the cache, in the order of their names. Folders that are none are left out.
pub(crate) fn list(cache: &Cache) -> Vec<CachedRepository> {
    let mut found = Vec::new();
    for folder in entries(cache.root()) {
        let Some(repository) = of_folder(&folder) else {
            continue;
        };
        let refs = references(&folder.join("refs"), "");
        for path in entries(&folder.join("snapshots")) {
            let commit = path.file_name().and_then(|name| name.to_str());
            let Some(commit) = commit.filter(|name| is_commit(name)) else {
                continue;
            };
            let mut blobs = BTreeSet::new();
            let files = blobs_in(&path, &mut blobs);
            let names = refs.iter().filter(|(_, of)| of == commit);
            found.push(CachedRepository {
                kind: repository.kind,
                id: repository.id.clone(),
                revisions: names.map(|(name, _)| name.clone()).collect(),
                commit: commit.to_owned(),
                bytes: blobs.iter().map(|(_, bytes)| bytes).sum(),
                files,
                path,
            });
        }
    }
    found.sort_by(|a, b| (&a.id, &a.commit).cmp(&(&b.id, &b.commit)));
    found
}

fn of_folder(folder: &Path) -> Option<Repository> {
    let name = folder.file_name()?.to_str()?;
    let (kind, id) = name.split_once("--")?;
    let kind = match kind {
        "models" => RepoType::Model,
        "datasets" => RepoType::Dataset,
        _ => return None,
    };
    Repository::parse(&id.replacen("--", "/", 1), kind)
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The names of branches and tags with their commits.
fn references(folder: &Path, prefix: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in entries(folder) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            found.extend(references(&path, &format!("{name}/")));
        } else if let Some(commit) = commit_in(&path) {
            found.push((name, commit));
        }
    }
    found.sort();
    found
}

/// Adds the contents of the files in a folder, each once; the number of files.
pub(super) fn blobs_in(folder: &Path, blobs: &mut BTreeSet<(PathBuf, u64)>) -> usize {
    let mut files = 0;
    for path in entries(folder) {
        let is_folder = path.symlink_metadata().is_ok_and(|data| data.is_dir());
        if is_folder {
            files += blobs_in(&path, blobs);
        } else if let (Ok(blob), Ok(data)) = (path.canonicalize(), path.metadata()) {
            files += 1;
            blobs.insert((blob, data.len()));
        }
    }
    files
}
