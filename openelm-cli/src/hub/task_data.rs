//! The data sets of evaluation tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    fetch::Hub,
    files::Files,
    repository::{RepoType, Repository},
};
use crate::error::Error;

/// Downloads data sets, each named as in `allenai/ai2_arc (ARC-Easy)`, with its configuration in
/// parentheses; the folder of the cache, in which tasks find them.
///
/// # Errors
/// [`Error::Usage`] for a name that is no repository's, and the errors of the Hub.
pub(crate) fn task_data(
    names: impl Iterator<Item = String>,
    quiet: bool,
) -> Result<PathBuf, Error> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in names {
        let (set, configuration) = match name.split_once(" (") {
            Some((set, rest)) => (set, rest.strip_suffix(')')),
            None => (name.as_str(), None),
        };
        let configurations = sets.entry(set.to_owned()).or_default();
        configurations.extend(configuration.map(str::to_owned));
    }
    let hub = Hub::open()?;
    for (set, configurations) in sets {
        let Some(repository) = Repository::parse(&set, RepoType::Dataset) else {
            let problem = format!("--data: expected the folder of the data set `{set}`");
            return Err(Error::Usage(problem));
        };
        hub.snapshot(&repository, &Files::Task(configurations), quiet)?;
    }
    Ok(hub.cache().root().to_owned())
}
