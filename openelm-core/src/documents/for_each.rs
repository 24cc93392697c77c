//! The documents of many files, in sequence.

use std::path::{Path, PathBuf};

use super::{
    files,
    reader::{DocumentReader, Found},
};
use crate::error::Result;

/// Words of a text file that are read at once.
const WORDS: usize = 2048;

/// Passes the text of all documents of `files` to `each`, in order; a text file comes in parts, of
/// which all except the first continue the previous one.
///
/// # Errors
///
/// The error of the first file or row that cannot be read.
pub(crate) fn for_each_document(
    files: &[PathBuf],
    key: &str,
    mut each: impl FnMut(&Path, &str, bool),
) -> Result<()> {
    for path in files::expand(files)? {
        let mut source = DocumentReader::open(&path, key, WORDS, 0)?;
        loop {
            match source.next() {
                Found::Document { text, continues } => each(&path, &text, continues),
                Found::BadRow(error) | Found::BadFile(error) => return Err(error),
                Found::End => break,
            }
        }
    }
    Ok(())
}
