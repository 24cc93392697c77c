//! The fragments of a stream's documents.

use std::{path::Path, sync::Arc};

use super::{
    fragments,
    group::{CorpusFile, Files},
    options::{CorpusOptions, Corrupt},
    shuffle,
    state::{Mark, Place, Position, Read},
    statistics::CorruptFile,
    streams::{Stream, Streams},
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

/// The next item of a stream.
pub(crate) enum Next {
    Fragment(Fragment),
    /// The end of an epoch; another one begins.
    Epoch(Mark),
    /// The end of the last epoch.
    End(Mark),
}

pub(crate) struct Reader {
    options: Arc<CorpusOptions>,
    files: Arc<Files>,
    streams: Arc<Streams>,
    /// Index of the stream.
    stream: usize,
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
    /// The reader of the stream with index `stream`, from `mark` on.
    pub(crate) fn new(
        options: &Arc<CorpusOptions>,
        files: &Arc<Files>,
        streams: &Arc<Streams>,
        stream: usize,
        mark: Mark,
    ) -> Self {
        let own = streams.all().get(stream);
        let order = own.map(|own| order(own, options.seed, mark.position.epoch));
        Self {
            options: Arc::clone(options),
            files: Arc::clone(files),
            streams: Arc::clone(streams),
            stream,
            order: order.unwrap_or_default(),
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
            let exhausted =
                (0..self.position.readers.len()).all(|reader| self.file(reader).is_none());
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
                let own = self.streams.all().get(self.stream);
                let order = own.map(|own| order(own, self.options.seed, self.position.epoch));
                self.order = order.unwrap_or_default();
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
        let Some(file) = self.file(turn).cloned() else {
            self.pass();
            return Ok(());
        };
        let path = file.path;
        let place = self.place();
        let mut source = match self.sources.get_mut(turn).and_then(Option::take) {
            Some(source) => source,
            None => {
                let words = self.options.words_per_fragment;
                match DocumentReader::open_as(&path, file.format, &file.text_key, words, place.row)
                {
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
    fn file(&self, reader: usize) -> Option<&CorpusFile> {
        let place = self.position.readers.get(reader)?;
        let readers = self.position.readers.len();
        let striped = place.file.checked_mul(readers)?.checked_add(reader)?;
        self.files.files.get(*self.order.get(striped)?)
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
        self.position.turn = (self.position.turn + 1) % self.position.readers.len();
    }

    fn mark(&self) -> Mark {
        Mark {
            position: self.position.clone(),
            read: self.read.clone(),
        }
    }
}

/// The files of `stream` in the order of an epoch: as they are in the first epoch unless it is
/// shuffled too, shuffled in each later one.
fn order(stream: &Stream, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order = stream.files.clone();
    if epoch > 0 || stream.shuffles_first {
        shuffle::files(&mut order, seed, epoch, stream.id);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_files_by_option_and_from_the_second_epoch() {
        let with = |shuffles_first, seed, epoch, id| {
            let stream = Stream {
                files: (0..50).collect(),
                readers: 1,
                shuffles_first,
                id,
            };
            order(&stream, seed, epoch)
        };
        let first = |shuffles_first, seed, epoch| with(shuffles_first, seed, epoch, (0, 0));
        let sorted: Vec<usize> = (0..50).collect();
        assert_eq!(first(false, 3, 0), sorted);
        let shuffled = first(false, 3, 1);
        assert_ne!(shuffled, sorted);
        assert_eq!(first(false, 3, 1), shuffled);
        assert_eq!(first(true, 3, 1), shuffled);
        assert_ne!(first(false, 3, 2), shuffled);
        assert_ne!(first(false, 4, 1), shuffled);
        assert_ne!(first(true, 3, 0), sorted);
        assert_ne!(first(true, 3, 0), shuffled);
        assert_ne!(with(false, 3, 1, (1, 0)), shuffled);
        assert_ne!(with(false, 3, 1, (0, 1)), shuffled);
        let mut again = shuffled;
        again.sort_unstable();
        assert_eq!(again, sorted);
    }
}
