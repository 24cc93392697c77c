//! A repository's files in the cache: found there, or downloaded.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use glob::Pattern;
use serde::Deserialize;

use super::{
    cache::{Cache, available, check_space},
    client::Client,
    download::{Download, RemoteFile, describe},
    environment::Environment,
    file_name::{first_unsafe, is_safe},
    files::Files,
    progress::{Progress, Work, count},
    repository::{MAIN, RepoType, Repository, is_commit},
};
use crate::{error::Error, output};

/// Largest description of a repository, in bytes.
const MAX_DESCRIPTION: u64 = 256 << 20;
/// Files that are described or downloaded at the same time.
const THREADS: usize = 8;

/// The path of the files that `given` names: `given` itself, unless nothing exists there and it is
/// the name of a repository. That one's `files` are downloaded if the cache does not have them.
///
/// # Errors
/// The errors of the Hub (`Error::Hub…`), which then say that the path does not exist either.
pub(crate) fn local(given: &Path, files: &Files, quiet: bool) -> Result<PathBuf, Error> {
    let Some(repository) = Repository::of_path(given, files.kind()) else {
        return Ok(given.to_owned());
    };
    let snapshot = Hub::open().and_then(|hub| hub.snapshot(&repository, files, quiet));
    Ok(snapshot.map_err(Error::of_absent)?.folder)
}

/// [`local`] of each of `paths`.
///
/// # Errors
/// As [`local`].
pub(crate) fn local_all(
    paths: Vec<PathBuf>,
    files: &Files,
    quiet: bool,
) -> Result<Vec<PathBuf>, Error> {
    paths.iter().map(|path| local(path, files, quiet)).collect()
}

/// [`local`] of a model in any format: also of one file in a repository, as in
/// `owner/name/model.gguf`.
///
/// # Errors
/// As [`local`].
pub(crate) fn local_source(given: &Path, quiet: bool) -> Result<PathBuf, Error> {
    let is_absent = || {
        let found = given.symlink_metadata();
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let named = || {
        let text = given.to_str()?;
        let (at, _) = text.match_indices('/').nth(1)?;
        let (repository, file) = (text.get(..at)?, text.get(at + 1..)?);
        let is_model = [".gguf", ".pt"].iter().any(|ending| file.ends_with(ending));
        let repository = Repository::parse(repository, RepoType::Model)?;
        (is_model && is_safe(file)).then_some((repository, file))
    };
    let Some((repository, file)) = named().filter(|_| is_absent()) else {
        return local(given, &Files::Model, quiet);
    };
    let files = Files::Matching(exactly(file).into_iter().collect(), Vec::new());
    let snapshot = Hub::open().and_then(|hub| hub.snapshot(&repository, &files, quiet));
    Ok(snapshot.map_err(Error::of_absent)?.folder.join(file))
}

fn exactly(name: &str) -> Option<Pattern> {
    Pattern::new(&Pattern::escape(name)).ok()
}

/// The Hub and its cache.
pub(crate) struct Hub {
    environment: Environment,
    cache: Cache,
}

/// The files of a repository at a commit.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The folder with the files.
    pub(crate) folder: PathBuf,
    /// The commit.
    pub(crate) commit: String,
    /// Bytes of the files that the cache did not have.
    pub(crate) new_bytes: u64,
}

/// The Hub's description of a revision.
#[derive(Deserialize)]
struct Description {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The Hub of the environment.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid variable.
    pub(crate) fn open() -> Result<Self, Error> {
        let environment = Environment::read()?;
        let cache = Cache::new(&environment.cache);
        Ok(Self { environment, cache })
    }

    /// The cache.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The `files` of a repository. The commit of a branch is requested each time, as
    /// `huggingface_hub` does; without an answer, the cache's commit is used.
    ///
    /// # Errors
    /// The errors of the Hub (`Error::Hub…`).
    pub(crate) fn snapshot(
        &self,
        repository: &Repository,
        files: &Files,
        quiet: bool,
    ) -> Result<Snapshot, Error> {
        if self.environment.offline {
            return self.cached(repository, files);
        }
        let token = self.environment.token.clone();
        let token = token.filter(|_| !self.environment.without_implicit_token);
        let client = Client::new(&self.environment, token)?;
        let description = match self.description(&client, repository) {
            Err(error @ Error::HubNetwork { .. }) => {
                let Ok(snapshot) = self.cached(repository, files) else {
                    return Err(error);
                };
                if !quiet {
                    let commit = snapshot.commit.get(..7).unwrap_or_default();
                    output::note(&format!("{error}; using {commit} of the cache"));
                }
                return Ok(snapshot);
            }
            description => description?,
        };
        let all: Vec<String> = description
            .siblings
            .into_iter()
            .map(|s| s.rfilename)
            .collect();
        if let Some(name) = first_unsafe(&all) {
            let problem = format!("the unsafe file name {name:?}; nothing is downloaded");
            return Err(Error::hub_content(&repository.to_string(), &problem));
        }
        if let Some(missing) = files.missing_of(&all) {
            return Err(lacks(repository, &missing, &all));
        }
        let commit = description.sha;
        let names = files.choose(&all);
        let folder = self.cache.snapshot(repository, &commit);
        let is_absent = |name: &&String| !folder.join(name).is_file();
        let absent: Vec<String> = names.iter().filter(is_absent).cloned().collect();
        let mut new_bytes = 0;
        if !absent.is_empty() {
            new_bytes = self.download(&client, repository, &commit, &absent, quiet)?;
        }
        if repository.revision != commit {
            self.cache.set_commit(repository, &commit)?;
        }
        Ok(Snapshot {
            folder,
            commit,
            new_bytes,
        })
    }

    /// The `files` of a repository in the cache, without the network.
    fn cached(&self, repository: &Repository, files: &Files) -> Result<Snapshot, Error> {
        let offline = |problem: String| Error::hub_offline(&repository.to_string(), &problem);
        let place = self.cache.root().display();
        let Some(commit) = self.cache.commit(repository) else {
            return Err(offline(format!("not in the cache {place}")));
        };
        let folder = self.cache.snapshot(repository, &commit);
        if let Some(missing) = files.missing(&folder) {
            return Err(offline(format!("{}: no {missing}", folder.display())));
        }
        Ok(Snapshot {
            folder,
            commit,
            new_bytes: 0,
        })
    }

    fn description(&self, client: &Client, repository: &Repository) -> Result<Description, Error> {
        let subject = repository.to_string();
        let found: Description = client.retrying(|client| {
            let answer = client.get(&repository.api(), &[], &subject)?;
            answer.json(MAX_DESCRIPTION, &subject)
        })?;
        let is_other = repository.is_commit() && found.sha != repository.revision;
        if !is_commit(&found.sha) || is_other {
            let problem = format!("a description of the invalid commit {:?}", found.sha);
            return Err(Error::hub_content(&subject, &problem));
        }
        Ok(found)
    }

    /// Downloads the files `names` and links them in the snapshot; their size in bytes.
    fn download(
        &self,
        client: &Client,
        repository: &Repository,
        commit: &str,
        names: &[String],
        quiet: bool,
    ) -> Result<u64, Error> {
        self.cache.create(repository)?;
        let described = in_parallel(names, |name, _| describe(client, repository, commit, name))?;
        // Files with the same contents are one blob.
        let mut blobs: BTreeMap<&str, &RemoteFile> = BTreeMap::new();
        for file in &described {
            blobs.entry(&file.etag).or_insert(file);
        }
        let mut missing = Vec::new();
        let (mut total, mut needed) = (0_u64, 0_u64);
        for file in blobs.into_values() {
            let blob = self.cache.blob(repository, &file.etag);
            let length = |path: &Path| path.metadata().map_or(0, |data| data.len());
            if blob.is_file() && length(&blob) == file.size {
                continue;
            }
            let begun = length(&blob.with_file_name(format!("{}.incomplete", file.etag)));
            total = total.saturating_add(file.size);
            needed = needed.saturating_add(file.size.saturating_sub(begun));
            missing.push(file.clone());
        }
        let folder = self.cache.folder(repository);
        check_space(&folder, needed, available(&folder))?;
        if !missing.is_empty() {
            // The small ones first: an interruption leaves more files complete.
            missing.sort_by_key(|file| file.size);
            let name = repository.to_string();
            let progress = Progress::begin(Work::Download, &name, missing.len(), total, quiet);
            let done = in_parallel(&missing, |file, stopped| {
                let download = Download {
                    client,
                    cache: &self.cache,
                    repository,
                    commit,
                    file,
                    progress: &progress,
                    stopped,
                };
                download.run()
            });
            if let Err(error) = done {
                progress.fail();
                return Err(error);
            }
            progress.end(&name, total);
        }
        // The links last, and of weights last: a snapshot with weights is complete.
        for file in &described {
            self.cache
                .link(repository, commit, &file.name, &file.etag)?;
        }
        Ok(total)
    }
}

/// The error of a repository without the files of a command.
fn lacks(repository: &Repository, missing: &str, all: &[String]) -> Error {
    let shown: Vec<&str> = all.iter().take(8).map(String::as_str).collect();
    let found = match (shown.is_empty(), all.len() - shown.len()) {
        (true, _) => "none".into(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {} more", shown.join(", "), count(more)),
    };
    let problem = format!("the repository has no {missing}; its files: {found}");
    let at = if repository.revision == MAIN {
        ""
    } else {
        " at this revision"
    };
    Error::hub_not_found(&repository.to_string(), &format!("{problem}{at}"))
}

/// The results of `work` on each item, by [`THREADS`] threads; the first error ends the others,
/// after their item or when `work` finds its second argument true.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T, &AtomicBool) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = Mutex::new(items.iter().enumerate());
    let results = Mutex::new(Vec::new());
    let failed = AtomicBool::new(false);
    let run = || {
        loop {
            let item = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, item)) = item.filter(|_| !failed.load(Ordering::Relaxed)) else {
                return;
            };
            let result = work(item, &failed);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..THREADS.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The first error in time first: later ones may follow from it.
    if let Some(at) = results.iter().position(|(_, result)| result.is_err()) {
        results.swap(0, at);
    } else {
        results.sort_by_key(|(index, _)| *index);
    }
    results.into_iter().map(|(_, result)| result).collect()
}
