//! The documents of many files, each as a whole.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use crate::{
    documents::{DocumentReader, Found, files},
    error::{Error, Result},
    lookup::is_pipe,
};

/// Words of a text file that are read at once.
const WORDS: usize = 2048;

/// The error of `places` without a document that has a token.
pub(super) fn no_text(places: &[PathBuf]) -> Error {
    match places {
        [] => Error::option("files", "expected texts, found none"),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let problem = format!("expected text in {}{more}, found none", first.display());
            Error::option("files", problem)
        }
    }
}

/// An iterator over the documents of files. A text file is one document.
pub(crate) struct Documents<'k> {
    files: VecDeque<PathBuf>,
    key: &'k str,
    reader: Option<DocumentReader>,
    /// A document that may continue.
    begun: Option<String>,
}

impl<'k> Documents<'k> {
    /// The documents of `places`, in the order of the paths; those of JSON rows and parquet columns
    /// are under `key`.
    ///
    /// # Errors
    /// As [`files::expand`].
    pub(crate) fn open(places: &[PathBuf], key: &'k str) -> Result<Self> {
        Ok(Self {
            files: files::expand(places)?.into(),
            key,
            reader: None,
            begun: None,
        })
    }

    fn reader(&mut self) -> Result<Option<&mut DocumentReader>> {
        if self.reader.is_none()
            && let Some(path) = self.files.pop_front()
        {
            self.reader = Some(open(&path, self.key)?);
        }
        Ok(self.reader.as_mut())
    }

    fn read(&mut self) -> Result<Option<String>> {
        loop {
            let Some(reader) = self.reader()? else {
                return Ok(self.begun.take());
            };
            match reader.next() {
                Found::Document {
                    text,
                    continues: true,
                } => {
                    // The space between two parts of a text file is in neither.
                    let begun = self.begun.get_or_insert_default();
                    begun.push(' ');
                    begun.push_str(&text);
                }
                Found::Document { text, .. } => {
                    if let Some(complete) = self.begun.replace(text) {
                        return Ok(Some(complete));
                    }
                }
                Found::BadRow(error) | Found::BadFile(error) => {
                    self.files.clear();
                    self.reader = None;
                    self.begun = None;
                    return Err(error);
                }
                Found::End => self.reader = None,
            }
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Checks that the files of `places` exist and that the first document of each can be read.
///
/// # Errors
/// The error of the first file or row that cannot be read; [`Error::Option`](crate::Error::Option)
/// if there are no files.
pub fn check_documents(places: &[PathBuf], key: &str) -> Result<()> {
    for path in files::expand(places)? {
        // A pipe can be read once.
        if is_pipe(&path) {
            continue;
        }
        if let Found::BadRow(error) | Found::BadFile(error) = open(&path, key)?.next() {
            return Err(error);
        }
    }
    Ok(())
}

fn open(path: &Path, key: &str) -> Result<DocumentReader> {
    DocumentReader::open(path, key, WORDS, 0)
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn a_text_file_is_one_document() {
        let folder = TempDir::new();
        let long = vec!["word"; 3 * WORDS + 5].join(" ");
        folder.write("a.jsonl", "{\"body\": \"one\"}\n{\"body\": \"two\"}\n");
        folder.write("b.txt", &long);
        folder.write(
            "c.jsonl",
            "{\"body\": \"\"}\n{\"text\": \"no\"}\n{\"body\": \"x\"}\n",
        );
        let places = [folder.join("a.jsonl"), folder.join("b.txt")];
        let all: Result<Vec<_>> = Documents::open(&places, "body").unwrap().collect();
        assert_eq!(all.unwrap(), ["one", "two", &*long]);
        check_documents(&places, "body").unwrap();
        let error = check_documents(&places, "text").unwrap_err().to_string();
        assert!(error.contains("a.jsonl:1: `text`"), "{error}");
        let mut bad = Documents::open(&[folder.join("c.jsonl")], "body").unwrap();
        let error = bad.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("c.jsonl:2: `body`"), "{error}");
        assert!(bad.next().is_none());
    }
}
