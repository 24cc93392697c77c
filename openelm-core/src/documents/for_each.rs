//! The documents of many files, one after another.

use std::path::{Path, PathBuf};

use super::{
    files,
    reader::{DocumentReader, Found},
};
use crate::error::Result;

/// Words of a text file that a tokenizer's training reads at once.
const WORDS: usize = 2048;

/// Hands `each` the text of all documents of `files`, in order; a text file comes in parts, of
/// which all but the first go on with what came before.
///
/// # Errors
///
/// Of the first file or row that cannot be read.
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
