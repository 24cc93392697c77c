//! Groups of files: the parts of a mixture, each with its own key, format and weight.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::options::CorpusOptions;
use crate::{
    documents::{FileFormat, files},
    error::{Error, Result},
};

/// A group of files in a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct CorpusGroup {
    /// Files, folders and patterns, as [`CorpusOptions::files`].
    pub files: Vec<PathBuf>,
    /// Key of the text, as [`CorpusOptions::text_key`].
    pub text_key: String,
    /// Format of the files; `None`, the default, is by their extensions. The extensions `.gz` and
    /// `.zst` stand for compression in either case.
    pub format: Option<FileFormat>,
    /// Share of the corpus's sequences that this group gives, in relation to the sum of all
    /// weights. `None`, the default, in all groups: their files are one list, and each file is read
    /// as often as the others, as in CoreNet.
    pub weight: Option<f64>,
}

/// A file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CorpusFile {
    pub(crate) path: PathBuf,
    pub(crate) text_key: Arc<str>,
    pub(crate) format: Option<FileFormat>,
}

/// The part of a group's options that determines the sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FixedGroup {
    files: usize,
    text_key: String,
    format: Option<FileFormat>,
    weight: Option<f64>,
}

/// The files of a corpus, and the number of files of each of its lists: one list per group with a
/// weight, or one for all.
pub(crate) struct Files {
    pub(crate) files: Vec<CorpusFile>,
    pub(crate) lists: Vec<usize>,
    /// Empty without groups.
    pub(crate) groups: Vec<FixedGroup>,
}

impl CorpusGroup {
    /// A group of `files` with the other defaults.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            text_key: CorpusOptions::TEXT_KEY.to_owned(),
            format: None,
            weight: None,
        }
    }
}

impl Files {
    /// Finds the files of `options`, in the order of the groups, sorted by path in each.
    ///
    /// # Errors
    ///
    /// As [`files::expand`]; [`Error::Option`] if a group is empty, [`Error::Data`] if a file is in
    /// two groups.
    pub(crate) fn find(options: &CorpusOptions) -> Result<Self> {
        let of = |path, key: &Arc<str>, format| CorpusFile {
            path,
            text_key: Arc::clone(key),
            format,
        };
        if options.groups.is_empty() {
            let key: Arc<str> = options.text_key.as_str().into();
            let found = files::expand(&options.files)?.into_iter();
            let files: Vec<CorpusFile> = found.map(|path| of(path, &key, None)).collect();
            return Ok(Self {
                lists: vec![files.len()],
                files,
                groups: Vec::new(),
            });
        }
        let (mut files, mut groups) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        for group in &options.groups {
            let found = files::expand_as(&group.files, group.format)?;
            if let Some(path) = found.iter().find(|path| known.contains(*path)) {
                return Err(Error::data(path, None, "the file is in two groups"));
            }
            known.extend(found.iter().cloned());
            groups.push(FixedGroup {
                files: found.len(),
                text_key: group.text_key.clone(),
                format: group.format,
                weight: group.weight,
            });
            let key: Arc<str> = group.text_key.as_str().into();
            files.extend(found.into_iter().map(|path| of(path, &key, group.format)));
        }
        let counts = groups.iter().map(|group| group.files);
        let lists = match options.weights() {
            Some(_) => counts.collect(),
            None => vec![files.len()],
        };
        Ok(Self {
            files,
            lists,
            groups,
        })
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }
}

/// Checks the options of `groups` that need no file.
pub(super) fn check(groups: &[CorpusGroup]) -> Result<()> {
    let wrong = |at: usize, problem: String| {
        let place = at + 1;
        Err(Error::option("groups", format!("group {place}: {problem}")))
    };
    let weighted = groups.iter().filter(|group| group.weight.is_some()).count();
    for (at, group) in groups.iter().enumerate() {
        if group.files.is_empty() {
            return wrong(at, "files: expected at least one, found none".into());
        }
        if group.text_key.is_empty() {
            return wrong(at, "text_key: expected a key, found none".into());
        }
        match group.weight {
            None if weighted > 0 => {
                let problem = "weight: expected a number, as in the other groups, found none";
                return wrong(at, problem.into());
            }
            Some(weight) if !(weight > 0.0 && weight.is_finite()) => {
                return wrong(
                    at,
                    format!("weight: expected a number above 0, found {weight}"),
                );
            }
            _ => {}
        }
    }
    let sum: f64 = groups.iter().filter_map(|group| group.weight).sum();
    if !sum.is_finite() {
        let problem = format!("the weights: expected a finite sum, found {sum}");
        return Err(Error::option("groups", problem));
    }
    Ok(())
}
