//! The fragments of all documents, in the order of the corpus.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{
    fragments,
    options::{CorpusOptions, Corrupt},
    state::{Mark, Place, Position, Read},
    statistics::CorruptFile,
};
use crate::{
    documents::{DocumentReader, Found},
    error::{Error, Result},
};

/// A fragment of a document, and the position after it.
pub(crate) struct Fragment {
    pub(crate) text: String,
    pub(crate) after: Mark,
}

/// The next item of the corpus.
pub(crate) enum Next {
    Fragment(Fragment),
    /// The end of an epoch; another one begins.
    Epoch(Mark),
    /// The end of the last epoch.
    End(Mark),
}

pub(crate) struct Reader {
    options: Arc<CorpusOptions>,
    files: Arc<Vec<PathBuf>>,
    /// Indices of the files in the order of this epoch.
    order: Vec<usize>,
    sources: Vec<Option<DocumentReader>>,
    position: Position,
    read: Read,
    document: Option<Document>,
}

/// A document, and the start of its next fragment, in bytes.
struct Document {
    text: String,
    start: usize,
}

impl Reader {
    pub(crate) fn new(options: &Arc<CorpusOptions>, files: &Arc<Vec<PathBuf>>, mark: Mark) -> Self {
        Self {
            options: Arc::clone(options),
            files: Arc::clone(files),
            order: order(files.len(), options, mark.position.epoch),
            sources: mark.position.readers.iter().map(|_| None).collect(),
            position: mark.position,
            read: mark.read,
            document: None,
        }
    }

    /// The next fragment with enough characters.
    pub(crate) fn next(&mut self) -> Result<Next> {
        loop {
            if let Some(text) = self.fragment() {
                self.read.fragments += 1;
                if fragments::characters(&text) >= self.options.min_characters {
                    let after = self.mark();
                    return Ok(Next::Fragment(Fragment { text, after }));
                }
                self.read.dropped_by_characters += 1;
                continue;
            }
            let exhausted = (0..self.options.readers).all(|reader| self.file(reader).is_none());
            if exhausted {
                if self.read.epochs == self.position.epoch {
                    self.read.epochs += 1;
                }
                if self.options.epochs.is_some_and(|n| self.read.epochs >= n) {
                    return Ok(Next::End(self.mark()));
                }
                let end = self.mark();
                self.position.epoch += 1;
                self.position.turn = 0;
                self.position.readers.fill(Place::default());
                self.order = order(self.files.len(), &self.options, self.position.epoch);
                return Ok(Next::Epoch(end));
            }
            self.open_document()?;
        }
    }

    /// The next fragment of the open document.
    fn fragment(&mut self) -> Option<String> {
        let place = self.place();
        let document = self.document.as_mut()?;
        let (end, next) = fragments::end(
            &document.text,
            document.start,
            self.options.words_per_fragment,
        );
        let text = document.text[document.start..end].to_owned();
        if let Some(next) = next {
            document.start = next;
            self.move_to(Place {
                fragment: place.fragment + 1,
                ..place
            });
        } else {
            self.document = None;
            self.move_to(Place {
                row: place.row + 1,
                fragment: 0,
                ..place
            });
            self.pass();
        }
        Some(text)
    }

    /// Opens the next document of the current reader, or passes the turn on.
    fn open_document(&mut self) -> Result<()> {
        let turn = self.position.turn;
        let Some(path) = self.file(turn) else {
            self.pass();
            return Ok(());
        };
        let place = self.place();
        let mut source = match self.sources.get_mut(turn).and_then(Option::take) {
            Some(source) => source,
            None => {
                let words = self.options.words_per_fragment;
                match DocumentReader::open(&path, &self.options.text_key, words, place.row) {
                    Ok(source) => source,
                    // A file that was readable before is not skipped for later corruption.
                    Err(error) if place.row > 0 => return Err(error),
                    Err(error @ Error::Data { .. }) => return self.close(&path, Some(error)),
                    Err(error) => return Err(error),
                }
            }
        };
        match source.next() {
            Found::Document { text, continues } => {
                self.read.documents += u64::from(!continues && place.fragment == 0);
                let mut start = 0;
                for _ in 0..place.fragment {
                    let (_, next) = fragments::end(&text, start, self.options.words_per_fragment);
                    start = next.unwrap_or(text.len());
                }
                self.document = Some(Document { text, start });
            }
            Found::BadRow(error) => {
                self.corrupt(&path, error)?;
                self.move_to(Place {
                    row: place.row + 1,
                    ..place
                });
            }
            Found::BadFile(error) => return self.close(&path, Some(error)),
            Found::End => return self.close(&path, None),
        }
        if let Some(slot) = self.sources.get_mut(turn) {
            *slot = Some(source);
        }
        Ok(())
    }

    /// Moves to the reader's next file.
    fn close(&mut self, path: &Path, error: Option<Error>) -> Result<()> {
        if let Some(error) = error {
            self.corrupt(path, error)?;
        }
        self.move_to(Place {
            file: self.place().file + 1,
            ..Place::default()
        });
        Ok(())
    }

    fn corrupt(&mut self, path: &Path, error: Error) -> Result<()> {
        if self.options.on_corrupt == Corrupt::Stop {
            return Err(error);
        }
        let path = path.display().to_string();
        let mut known = self.read.corrupt.iter_mut();
        match known.find(|file| file.path == path) {
            Some(file) => file.count += 1,
            None => self.read.corrupt.push(CorruptFile {
                path,
                problem: error.to_string(),
                count: 1,
            }),
        }
        Ok(())
    }

    /// The current file of a reader; `None` after its last.
    fn file(&self, reader: usize) -> Option<PathBuf> {
        let place = self.position.readers.get(reader)?;
        let striped = place
            .file
            .checked_mul(self.options.readers)?
            .checked_add(reader)?;
        self.files.get(*self.order.get(striped)?).cloned()
    }

    /// The position of the current reader.
    fn place(&self) -> Place {
        // `turn` is below the number of readers; `CorpusState::check` ensures it for a saved state.
        self.position.readers[self.position.turn]
    }

    fn move_to(&mut self, place: Place) {
        self.position.readers[self.position.turn] = place;
    }

    fn pass(&mut self) {
        self.position.turn = (self.position.turn + 1) % self.options.readers;
    }

    fn mark(&self) -> Mark {
        Mark {
            position: self.position.clone(),
            read: self.read.clone(),
        }
    }
}

/// The order of `count` files: sorted in the first epoch unless it is shuffled too, shuffled in each
/// later one.
fn order(count: usize, options: &CorpusOptions, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if epoch > 0 || options.shuffle_files {
        let mut key = [0; 32];
        let seed = options.seed.to_le_bytes().into_iter();
        for (place, byte) in key.iter_mut().zip(seed.chain(epoch.to_le_bytes())) {
            *place = byte;
        }
        let mut random = ChaCha8Rng::from_seed(key);
        for last in (1..count).rev() {
            // The count of files is far below 2^64, so the bias of the remainder is negligible.
            let other = random.next_u64() % (last as u64 + 1);
            order.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_files_by_option_and_from_the_second_epoch() {
        let with = |shuffle_files, seed, epoch| {
            let options = CorpusOptions {
                shuffle_files,
                seed,
                ..CorpusOptions::default()
            };
            order(50, &options, epoch)
        };
        let sorted: Vec<usize> = (0..50).collect();
        assert_eq!(with(false, 3, 0), sorted);
        let shuffled = with(false, 3, 1);
        assert_ne!(shuffled, sorted);
        assert_eq!(with(false, 3, 1), shuffled);
        assert_eq!(with(true, 3, 1), shuffled);
        assert_ne!(with(false, 3, 2), shuffled);
        assert_ne!(with(false, 4, 1), shuffled);
        assert_ne!(with(true, 3, 0), sorted);
        assert_ne!(with(true, 3, 0), shuffled);
        let mut again = shuffled;
        again.sort_unstable();
        assert_eq!(again, sorted);
    }
}
