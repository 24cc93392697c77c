//! The download of one file: continued after any interruption, and verified.
//!
//! The bytes go to `blobs/ETAG.incomplete`, which stays when the process ends. The next attempt
//! requests the missing range and accepts only the exact range (206); the whole file (200) begins
//! again. The address names the commit, so the bytes at a place never change; the hash of the whole
//! file decides at the end. The file gets its name in the cache after that.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    cache::Cache,
    checksum::{Checksum, Hasher},
    client::{Answer, Client, Failure, Retry},
    file_name::is_safe,
    progress::Progress,
    repository::Repository,
};
use crate::error::Error;

/// A file of a repository, as the Hub describes it.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    pub(super) name: String,
    /// Name of the contents: their hash.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

/// The file `name` at `commit`, from the headers that the Hub gives.
///
/// # Errors
/// [`Error::HubContent`] if a header is missing or invalid, and the errors of the request.
pub(super) fn describe(
    client: &Client,
    repository: &Repository,
    commit: &str,
    name: &str,
) -> Result<RemoteFile, Error> {
    let subject = format!("{repository}: {name}");
    let path = repository.file(commit, name);
    let answer = client.retrying(|client| client.head(&path, &subject))?;
    let wrong = |problem: &str| Error::hub_content(&subject, problem);
    let etag = answer
        .header("X-Linked-Etag")
        .or_else(|| answer.header("ETag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    let Some(etag) = etag.filter(|etag| is_safe(etag) && !etag.contains('/')) else {
        return Err(wrong("an answer without a valid ETag"));
    };
    let is_redirect = answer.status >= 300;
    let length = answer.header("Content-Length").filter(|_| !is_redirect);
    let size = answer.header("X-Linked-Size").or(length);
    let Some(size) = size.and_then(|size| size.parse().ok()) else {
        return Err(wrong("an answer without a valid size"));
    };
    match answer.header("X-Repo-Commit") {
        Some(found) if found == commit => {}
        found => {
            let found = found.unwrap_or("none");
            return Err(wrong(&format!(
                "expected a file of commit {commit}, found {found}"
            )));
        }
    }
    Ok(RemoteFile {
        name: name.to_owned(),
        etag: etag.to_owned(),
        size,
    })
}

/// A file to download into the cache.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a Repository,
    pub(super) commit: &'a str,
    pub(super) file: &'a RemoteFile,
    pub(super) progress: &'a Progress,
    /// Another download has failed.
    pub(super) stopped: &'a AtomicBool,
}

/// The incomplete file, its length, and the hash of its bytes.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Hasher,
}

impl Download<'_> {
    /// Downloads the file, unless the cache has its contents.
    ///
    /// # Errors
    /// [`Error::HubContent`] if the hash or size is wrong, [`Error::HubCache`] if the file cannot
    /// be written, and the errors of the requests.
    pub(super) fn run(&self) -> Result<(), Error> {
        let (etag, size) = (&self.file.etag, self.file.size);
        let name = &self.file.name;
        let waiting = || {
            self.progress
                .note(&format!("{name}: another process downloads it"))
        };
        let lock = self.cache.lock(self.repository, etag, waiting)?;
        let blob = self.cache.blob(self.repository, etag);
        if is_complete(&blob, size) {
            self.progress.add(size);
            return Ok(());
        }
        // Without a lock, another process may write to the same file.
        let ending = if lock.is_held() {
            "incomplete".to_owned()
        } else {
            format!("{}.incomplete", process::id())
        };
        let path = blob.with_file_name(format!("{etag}.{ending}"));
        let failed = |error| Error::hub_cache(&path, error);
        let checksum = Checksum::of_etag(etag);
        // Contents without a hash could not be verified at the end: they begin again.
        let hash = checksum.clone().unwrap_or(Checksum::Sha256(String::new()));
        let mut partial =
            Partial::open(path.clone(), &hash, size, checksum.is_some()).map_err(failed)?;
        self.progress.resume(partial.length);
        self.fetch(&mut partial, &hash)?;
        if let Some(expected) = &checksum
            && let Err(found) = partial.verify(expected)
        {
            // The bytes before an interruption may be at fault.
            let restarted = self.restart(&mut partial, &hash);
            restarted.map_err(|failure| failure.error)?;
            self.fetch(&mut partial, &hash)?;
            if let Err(again) = partial.verify(expected) {
                let _ = fs::remove_file(&path);
                let expected = expected.text();
                let other = if found == again {
                    "twice"
                } else {
                    "then another"
                };
                return Err(Error::hub_content(
                    &self.subject(),
                    &format!("expected the hash {expected}, found {found}, {other}; removed"),
                ));
            }
        }
        partial.file.sync_all().map_err(failed)?;
        fs::rename(&path, &blob).map_err(|error| Error::hub_cache(&blob, error))?;
        if let Some(folder) = blob.parent().and_then(|folder| File::open(folder).ok()) {
            // Not every file system can do this.
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Fills the incomplete file.
    fn fetch(&self, partial: &mut Partial, hash: &Checksum) -> Result<(), Error> {
        let mut attempt = 0;
        while partial.length < self.file.size {
            let before = partial.length;
            let result = self.fetch_some(partial, hash);
            if partial.length > before {
                attempt = 0;
            }
            if let Err(failure) = result {
                attempt += 1;
                let has_no_range = failure.retry == Retry::WithoutRange;
                failure.wait(attempt)?;
                if has_no_range {
                    let restarted = self.restart(partial, hash);
                    restarted.map_err(|failure| failure.error)?;
                }
            }
        }
        Ok(())
    }

    /// Requests the missing bytes once.
    fn fetch_some(&self, partial: &mut Partial, hash: &Checksum) -> Result<(), Failure> {
        let subject = self.subject();
        let size = self.file.size;
        let mut headers = Vec::new();
        if partial.length > 0 {
            headers.push(("Range", format!("bytes={}-", partial.length)));
            // The Hub's own ETag. A host that it redirects to has another one, and ignores the range
            // then: the client sends this header to the Hub only.
            headers.push(("If-Range", format!("\"{}\"", self.file.etag)));
        }
        let path = self.repository.file(self.commit, &self.file.name);
        let answer = self.client.get(&path, &headers, &subject)?;
        if answer.status == 200 {
            self.restart(partial, hash)?;
        } else if !is_range(&answer, partial.length, size) {
            self.restart(partial, hash)?;
            let problem = "expected the requested part of the file, found another one";
            return Err(cut(&subject, problem));
        }
        let announced = answer
            .header("Content-Length")
            .and_then(|text| text.parse().ok());
        let missing = size - partial.length;
        if let Some(found) = announced.filter(|&found: &u64| found != missing) {
            let problem = format!("expected {missing} bytes, found {found}");
            return Err(Failure::content(&subject, &problem));
        }
        let mut reader = answer.body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 17];
        while partial.length < size {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure::content(&subject, "another download has failed"));
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Err(cut(&subject, "the connection ended early")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cut(&subject, &error.to_string())),
            };
            if count as u64 > size - partial.length {
                let problem = format!("more bytes than the {size} that the Hub states");
                return Err(Failure::content(&subject, &problem));
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            let written = partial.write(bytes);
            written.map_err(|error| disk(&partial.path, error))?;
            self.progress.add(count as u64);
        }
        Ok(())
    }

    fn restart(&self, partial: &mut Partial, hash: &Checksum) -> Result<(), Failure> {
        let restarted = partial.restart(hash, self.file.size, self.progress);
        restarted.map_err(|error| disk(&partial.path, error))
    }

    fn subject(&self) -> String {
        format!("{}: {}", self.repository, self.file.name)
    }
}

impl Partial {
    /// Opens the incomplete file at `path`, with the bytes of an earlier download if `continues`.
    fn open(path: PathBuf, hash: &Checksum, size: u64, continues: bool) -> io::Result<Self> {
        let is_link = path.symlink_metadata().is_ok_and(|data| !data.is_file());
        if is_link {
            fs::remove_file(&path)?;
        }
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .clone();
        let mut file = options.open(&path)?;
        let mut length = file.metadata()?.len();
        if !continues || length > size {
            file.set_len(0)?;
            length = 0;
        }
        let mut hasher = hash.begin(size);
        if length > 0 {
            length = hasher.read(&mut file)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self {
            path,
            file,
            length,
            hasher,
        })
    }

    /// Begins again from nothing.
    fn restart(&mut self, hash: &Checksum, size: u64, progress: &Progress) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        progress.remove(self.length);
        self.length = 0;
        self.hasher = hash.begin(size);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Compares the hash with `expected`.
    ///
    /// # Errors
    /// The hash of the file, if it is another one.
    fn verify(&self, expected: &Checksum) -> Result<(), String> {
        let found = self.hasher.clone().finish();
        if found == expected.text() {
            Ok(())
        } else {
            Err(found)
        }
    }
}

/// True if the cache has the contents: a blob of the size.
fn is_complete(blob: &Path, size: u64) -> bool {
    blob.metadata()
        .is_ok_and(|data| data.is_file() && data.len() == size)
}

/// True for the bytes from `start` to the end of a file of `size` bytes.
fn is_range(answer: &Answer, start: u64, size: u64) -> bool {
    let expected = format!("bytes {start}-{}/{size}", size.saturating_sub(1));
    answer.status == 206 && answer.header("Content-Range") == Some(&expected)
}

fn disk(path: &Path, error: io::Error) -> Failure {
    Failure {
        error: Error::hub_cache(path, error),
        retry: Retry::Never,
    }
}

fn cut(subject: &str, problem: &str) -> Failure {
    Failure {
        error: Error::hub_network(subject, problem),
        retry: Retry::Wait,
    }
}
