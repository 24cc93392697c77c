//! The cache of `huggingface_hub`: its layout, links, refs and locks.
//!
//! ```text
//! models--OWNER--NAME/
//!   blobs/ETAG                       contents, named after their hash
//!   blobs/ETAG.incomplete            a download that is not complete
//!   refs/main                        the commit of a branch or tag
//!   snapshots/COMMIT/config.json     a relative link to a blob
//! .locks/models--OWNER--NAME/ETAG.lock
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use openelm_core::text::read_text_file;

use super::repository::{Repository, is_commit};
use crate::{error::Error, output};

/// Longest file of a branch or tag, in bytes.
const MAX_REFERENCE: u64 = 1 << 10;
/// Text of `CACHEDIR.TAG` (<https://bford.info/cachedir/>), for backup programs.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # Cache of the Hugging Face Hub. See https://bford.info/cachedir/\n";

/// A cache folder.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

/// A lock on a blob. `None` where the file system has no locks.
pub(super) struct BlobLock(Option<File>);

impl BlobLock {
    /// True if no other process can hold the lock.
    pub(super) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Cache {
    /// The cache in the folder `root`, which need not exist.
    pub(crate) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The folder of a repository.
    pub(super) fn folder(&self, repository: &Repository) -> PathBuf {
        self.0.join(repository.folder_name())
    }

    /// The folder of the files at a commit.
    pub(super) fn snapshot(&self, repository: &Repository, commit: &str) -> PathBuf {
        self.folder(repository).join("snapshots").join(commit)
    }

    /// The file with the contents of hash `etag`.
    pub(super) fn blob(&self, repository: &Repository, etag: &str) -> PathBuf {
        self.folder(repository).join("blobs").join(etag)
    }

    /// The commit of the revision, as far as the cache has it.
    pub(super) fn commit(&self, repository: &Repository) -> Option<String> {
        if repository.is_commit() {
            return Some(repository.revision.clone());
        }
        commit_in(&self.reference(repository))
    }

    /// Records the commit of the revision, which is a branch or tag.
    ///
    /// # Errors
    /// [`Error::HubCache`] if the file cannot be written.
    pub(super) fn set_commit(&self, repository: &Repository, commit: &str) -> Result<(), Error> {
        if self.commit(repository).as_deref() == Some(commit) {
            return Ok(());
        }
        let file = self.reference(repository);
        create_parents(&file)?;
        replace(&file, commit.as_bytes()).map_err(|error| Error::hub_cache(&file, error))
    }

    /// Makes the folders of a repository.
    ///
    /// # Errors
    /// [`Error::HubCache`] if they cannot be made.
    pub(super) fn create(&self, repository: &Repository) -> Result<(), Error> {
        create_parents(&self.blob(repository, "-"))?;
        create_parents(&self.lock_file(repository, "-"))?;
        let tag = self.0.join("CACHEDIR.TAG");
        if !tag.exists() {
            // The cache works without it.
            let _ = replace(&tag, TAG.as_bytes());
        }
        Ok(())
    }

    /// Links the file `name` of the snapshot to the blob `etag`. `name` is a safe name.
    ///
    /// # Errors
    /// [`Error::HubCache`] if the link cannot be made.
    pub(super) fn link(
        &self,
        repository: &Repository,
        commit: &str,
        name: &str,
        etag: &str,
    ) -> Result<(), Error> {
        let link = self.snapshot(repository, commit).join(name);
        create_parents(&link)?;
        // From snapshots/COMMIT, and from each folder in it.
        let up = "../".repeat(2 + name.matches('/').count());
        let temporary = beside(&link);
        // A link of a process that ended here.
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &temporary)
            .and_then(|()| fs::rename(&temporary, &link))
            .map_err(|error| Error::hub_cache(&link, error))
    }

    /// Locks the blob `etag` as `huggingface_hub` does (`flock`); calls `waiting` before it waits
    /// for another process.
    ///
    /// # Errors
    /// [`Error::HubCache`] if the lock file cannot be opened.
    pub(super) fn lock(
        &self,
        repository: &Repository,
        etag: &str,
        waiting: impl FnOnce(),
    ) -> Result<BlobLock, Error> {
        let path = self.lock_file(repository, etag);
        let open = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = open.map_err(|error| Error::hub_cache(&path, error))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().is_ok()
            }
            Err(TryLockError::Error(_)) => false,
            Ok(()) => true,
        };
        Ok(BlobLock(locked.then_some(file)))
    }

    fn reference(&self, repository: &Repository) -> PathBuf {
        self.folder(repository)
            .join("refs")
            .join(&repository.revision)
    }

    fn lock_file(&self, repository: &Repository, etag: &str) -> PathBuf {
        let locks = self.0.join(".locks").join(repository.folder_name());
        locks.join(format!("{etag}.lock"))
    }
}

/// The commit in the file of a branch or tag; `None` if it has none.
pub(super) fn commit_in(reference: &Path) -> Option<String> {
    let text = read_text_file(reference, MAX_REFERENCE).ok()?;
    let commit = text.trim();
    is_commit(commit).then(|| commit.to_owned())
}

/// Makes the folder that `path` is in.
pub(super) fn create_parents(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Error::hub_cache(folder, error))
}

/// Bytes that the file system of `folder` has left for this user; `None` if it does not say.
pub(super) fn available(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Refuses a download of `needed` bytes into `folder`, whose file system has `left` bytes.
///
/// # Errors
/// [`Error::HubCache`] with both numbers.
pub(super) fn check_space(folder: &Path, needed: u64, left: Option<u64>) -> Result<(), Error> {
    let Some(left) = left.filter(|&left| left < needed) else {
        return Ok(());
    };
    let (needed, left) = (output::bytes(needed), output::bytes(left));
    Err(Error::HubCache {
        path: folder.display().to_string(),
        problem: format!(
            "{needed} are needed, the disk has {left}; HF_HUB_CACHE sets another folder"
        ),
    })
}

/// Writes a file beside `path` and renames it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;
    use crate::hub::RepoType;

    #[test]
    fn a_download_needs_space() {
        let folder = Path::new("cache");
        check_space(folder, 2, Some(2)).unwrap();
        check_space(folder, u64::MAX, None).unwrap();
        let error = check_space(folder, 5_000_000_000, Some(1_000_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cache: 5.00 GB are needed, the disk has 1.00 MB; HF_HUB_CACHE sets another folder"
        );
        assert!(available(Path::new(".")).is_some_and(|left| left > 0));
    }

    #[test]
    fn links_are_relative_and_refs_name_commits() {
        let folder = TempDir::new();
        let cache = Cache::new(&folder.join("hub"));
        let repository = Repository::parse("o/n@refs/pr/1", RepoType::Model).unwrap();
        cache.create(&repository).unwrap();
        fs::write(cache.blob(&repository, "abc"), "text").unwrap();
        let commit = "0123456789012345678901234567890123456789";
        for (name, target) in [
            ("a.json", "../../blobs/abc"),
            ("b/c/d.json", "../../../../blobs/abc"),
        ] {
            cache.link(&repository, commit, name, "abc").unwrap();
            cache.link(&repository, commit, name, "abc").unwrap();
            let link = cache.snapshot(&repository, commit).join(name);
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
            assert_eq!(fs::read_to_string(&link).unwrap(), "text");
        }
        assert_eq!(cache.commit(&repository), None);
        cache.set_commit(&repository, commit).unwrap();
        assert_eq!(cache.commit(&repository).as_deref(), Some(commit));
        let file = folder.join("hub/models--o--n/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(&file).unwrap(), commit);
        fs::write(&file, "../../..").unwrap();
        assert_eq!(cache.commit(&repository), None);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert_eq!(cache.commit(&repository), None);
    }
}
