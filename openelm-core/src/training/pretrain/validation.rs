//! Held-out texts, in windows that together predict each token once.

use std::path::PathBuf;

use crate::{
    data::{
        Fingerprint,
        batch::Batch,
        corpus::{Sequence, normalized, prepared},
    },
    documents::for_each_document,
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// Held-out texts, tokenised.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validation {
    windows: Vec<Sequence>,
    /// UTF-8 bytes of each window's targets; the last window of a document absorbs the rounding.
    bytes: Vec<u64>,
}

impl Validation {
    /// The windows of `texts`: the ids of each text between BOS and EOS, in windows of `length`
    /// tokens. Each window has its own context and also predicts the token after it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a text cannot be encoded, [`Error::Data`] if there are none.
    pub fn new<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
        tokenizer: &Tokenizer,
        length: usize,
    ) -> Result<Self> {
        let mut made = Self::default();
        let length = length.max(1);
        // As in the corpus reader, spellings of special tokens are text.
        let tokenizer = tokenizer.literal();
        for text in texts {
            let text = text.as_ref();
            let mut ids = tokenizer.encode_prompt(&normalized(text))?;
            ids.push(tokenizer.eos_id());
            let targets = ids.len() - 1;
            let mut left = text.len() as u64;
            for start in (0..targets).step_by(length) {
                let end = ids.len().min(length.saturating_add(start + 1));
                let window = ids.get(start..end).unwrap_or_default().to_vec();
                let share = if end == ids.len() {
                    left
                } else {
                    (text.len() * (window.len() - 1) / targets) as u64
                };
                left -= share;
                made.bytes.push(share);
                made.windows.push(Sequence {
                    tokens: window,
                    document_starts: vec![0],
                });
            }
        }
        if made.windows.is_empty() {
            return Err(Error::Data {
                path: PathBuf::from("validation data"),
                line: None,
                problem: "expected at least one text, found none".into(),
            });
        }
        Ok(made)
    }

    /// Like [`new`](Self::new), for every document of `files`, which are read like a corpus, with
    /// the text of rows under `key`, repaired if `clean_text`; no document is skipped.
    ///
    /// # Errors
    /// As [`new`](Self::new), and the error of the first file or row that cannot be read.
    pub fn read(
        files: &[PathBuf],
        key: &str,
        clean_text: bool,
        tokenizer: &Tokenizer,
        length: usize,
    ) -> Result<Self> {
        let mut texts: Vec<String> = Vec::new();
        for_each_document(files, key, |_, text, continues| match texts.last_mut() {
            Some(last) if continues => last.push_str(text),
            _ => texts.push(text.to_owned()),
        })?;
        let prepared = texts.iter().map(|text| prepared(text, clean_text));
        Self::new(prepared, tokenizer, length)
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// True if there is no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// A hash of all windows.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.windows)
    }

    /// Length in UTF-8 bytes of the texts in the first `windows` windows.
    pub(crate) fn bytes(&self, windows: usize) -> u64 {
        self.bytes.iter().take(windows).sum()
    }

    /// This process's part of the first `most` windows, in batches of `rows`.
    pub(crate) fn batches(
        &self,
        most: usize,
        rows: usize,
        rank: usize,
        world_size: usize,
    ) -> impl Iterator<Item = Batch> {
        let windows = self.windows.iter().take(most);
        let own = windows.skip(rank).step_by(world_size);
        let own: Vec<&Sequence> = own.collect();
        let mut start = 0_usize;
        std::iter::from_fn(move || {
            let end = own.len().min(start.saturating_add(rows));
            let chosen = own.get(start..end).filter(|chosen| !chosen.is_empty())?;
            start = end;
            Some(packed(chosen.iter().copied()))
        })
    }
}

/// A hash of tokens and document starts.
pub(super) fn fingerprint(sequences: &[Sequence]) -> String {
    let mut hash = Fingerprint::new();
    for sequence in sequences {
        hash.number(u64::MAX);
        for &start in &sequence.document_starts {
            hash.number(start as u64);
        }
        for &token in &sequence.tokens {
            hash.number(u64::from(token));
        }
    }
    hash.to_string()
}

/// The batch of `sequences`, padded to the longest.
pub(crate) fn packed<'s>(sequences: impl Iterator<Item = &'s Sequence>) -> Batch {
    let rows: Vec<(&[u32], &[usize])> = sequences
        .map(|sequence| (&sequence.tokens[..], &sequence.document_starts[..]))
        .collect();
    let longest = rows.iter().map(|(tokens, _)| tokens.len());
    let length = longest.max().unwrap_or_default().saturating_sub(1);
    Batch::packed(&rows, length)
}
