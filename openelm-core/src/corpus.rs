//! Text to pre-train on, read and tokenised on the fly.

mod column;
mod files;
#[cfg(test)]
pub(crate) mod scratch;
mod source;

use std::path::{Path, PathBuf};

use crate::error::Result;
use source::{Found, Source};

/// Words of a text file that are read at once.
const WORDS: usize = 2048;

/// Hands `each` the text of all documents of `files`, in order; a text file comes in parts,
/// of which all but the first go on with what came before.
///
/// # Errors
///
/// Of the first file or row that cannot be read.
pub(crate) fn documents(
    files: &[PathBuf],
    key: &str,
    mut each: impl FnMut(&Path, &str, bool),
) -> Result<()> {
    for path in files::expand(files)? {
        let mut source = Source::open(&path, key, WORDS, 0)?;
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
