//! The rows of a file as token ids.

use std::path::Path;

use super::{
    encode,
    example::{Example, PreferencePair},
    options::{Counts, DatasetOptions, LongRows},
    row::Content,
    rows::{RowKind, Rows},
    truncate, windows,
};
use crate::{
    error::Result,
    parallel,
    tokenizer::{ChatTemplate, Tokenizer},
};

/// The examples of a file, in the order of its rows.
#[derive(Clone, Debug)]
pub struct Dataset {
    examples: Vec<Example>,
    counts: Counts,
    kind: RowKind,
    chat_template: Option<ChatTemplate>,
    key_counts: Vec<usize>,
}

impl Dataset {
    /// Reads a `.jsonl`, `.json` or `.txt` file on all cores; the result does not depend on their number.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if the file cannot be read; [`crate::Error::Data`], with file, line and
    /// key, if a row is malformed, empty or of another kind than the first, if no row is left, or
    /// if `mask_prompt` is set for rows of `text`; [`crate::Error::Option`] if `max_length` is
    /// under 2, or `chat_template` is set for rows of `text` or of a prompt and a completion; [`crate::Error::Tokenizer`] as [`Tokenizer::encode`].
    pub fn read(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
    ) -> Result<Self> {
        options.check()?;
        let rows = Rows::read(path.as_ref(), options.chat_template, options.clean_text)?;
        match rows.kind() {
            RowKind::Preference => return Err(rows.error(PREFERENCE_ROWS)),
            RowKind::Text if options.mask_prompt => return Err(rows.error(NO_PROMPT)),
            _ => {}
        }
        let encoded = parallel::map(&rows.lines()?, |line| {
            let row = rows.parse(line)?;
            let example = match &row.content {
                Content::Text(text) => encode::text(tokenizer, text)?,
                Content::Completion { prompt, completion } => {
                    encode::completion(tokenizer, prompt, completion, options.mask_prompt)?
                }
                Content::Preference { .. } => return Err(rows.error(PREFERENCE_ROWS)),
            };
            Ok((example, row.keys))
        })?;
        let mut dataset = Self {
            examples: Vec::with_capacity(encoded.len()),
            counts: Counts::default(),
            kind: rows.kind(),
            chat_template: rows.chat_template(),
            key_counts: Vec::with_capacity(encoded.len()),
        };
        for (example, keys) in encoded {
            dataset.push(example, keys, options);
        }
        dataset.counts.examples = dataset.examples.len();
        rows.check_used(&dataset.counts, options.max_length)?;
        Ok(dataset)
    }

    fn push(&mut self, example: Example, keys: usize, options: &DatasetOptions) {
        self.counts.rows += 1;
        let fits = example.tokens.len() <= options.max_length;
        let examples = if fits {
            vec![example]
        } else if options.mlx_lm_compat {
            self.counts.truncated += 1;
            vec![example]
        } else if options.long_rows == LongRows::Drop {
            self.counts.dropped += 1;
            return;
        } else {
            self.counts.split += 1;
            windows::split(&example, options.max_length)
        };
        for example in examples {
            self.counts.add(&example);
            self.key_counts.push(keys);
            self.examples.push(example);
        }
    }

    /// The examples; at least one.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Counts of the rows and examples.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The kind of the rows.
    pub fn kind(&self) -> RowKind {
        self.kind
    }

    /// The template of the rows; `None` for rows without a conversation.
    pub fn chat_template(&self) -> Option<ChatTemplate> {
        self.chat_template
    }

    /// Tokens of each example, for a [`BatchPlan`](crate::data::batch::BatchPlan).
    pub fn lengths(&self) -> Vec<usize> {
        let lengths = self.examples.iter().map(|example| example.tokens.len());
        lengths.collect()
    }

    /// Number of keys in the JSON row of each example, 1 for a text file: mlx-lm's sort key, for
    /// [`mlx_lm_batches`](crate::data::batch::mlx_lm_batches).
    pub fn key_counts(&self) -> &[usize] {
        &self.key_counts
    }
}

/// The preference pairs of a file, in the order of its rows.
///
/// `chosen` and `rejected` are texts that directly follow `prompt`, or lists of messages that end
/// with the answer. Messages before the answer are the conversation so far, and `prompt`, which
/// usually repeats the question, is then ignored; without such messages, `prompt` is the
/// conversation, as a list of messages or as a single user message. Conversations use the
/// [chat template](DatasetOptions::chat_template).
#[derive(Clone, Debug)]
pub struct PreferenceDataset {
    pairs: Vec<PreferencePair>,
    counts: Counts,
}

impl PreferenceDataset {
    /// Reads a `.jsonl` or `.json` file of preference pairs. Of `options`, `max_length`,
    /// `max_prompt_length`, `chat_template` and `clean_text` apply.
    ///
    /// # Errors
    ///
    /// As [`Dataset::read`]; [`crate::Error::Data`] also if the answers have different prompts.
    pub fn read(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
    ) -> Result<Self> {
        options.check()?;
        let rows = Rows::read(path.as_ref(), options.chat_template, options.clean_text)?;
        if rows.kind() != RowKind::Preference {
            return Err(rows.error(NO_PREFERENCE));
        }
        let encoded = parallel::map(&rows.lines()?, |line| match rows.parse(line)?.content {
            Content::Preference {
                prompt,
                chosen,
                rejected,
            } => encode::pair(tokenizer, &prompt, &chosen, &rejected),
            _ => Err(rows.error(NO_PREFERENCE)),
        })?;
        let mut counts = Counts {
            rows: encoded.len(),
            ..Counts::default()
        };
        let mut pairs = encoded;
        if let Some(most) = options.max_prompt_length {
            for pair in &mut pairs {
                counts.truncated += usize::from(truncate::pair(pair, options.max_length, most));
            }
        }
        pairs.retain(|pair| {
            [&pair.chosen, &pair.rejected]
                .iter()
                .all(|side| side.tokens.len() <= options.max_length)
        });
        counts.examples = pairs.len();
        counts.dropped = counts.rows - pairs.len();
        for pair in &pairs {
            counts.add(&pair.chosen);
            counts.add(&pair.rejected);
        }
        rows.check_used(&counts, options.max_length)?;
        Ok(Self { pairs, counts })
    }

    /// The pairs; at least one.
    pub fn pairs(&self) -> &[PreferencePair] {
        &self.pairs
    }

    /// Counts of the rows and examples.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Tokens of the longer side of each pair, for a [`BatchPlan`](crate::data::batch::BatchPlan).
    pub fn lengths(&self) -> Vec<usize> {
        let lengths = self
            .pairs
            .iter()
            .map(|pair| pair.chosen.tokens.len().max(pair.rejected.tokens.len()));
        lengths.collect()
    }
}

const PREFERENCE_ROWS: &str = "rows of `prompt`, `chosen` and `rejected` are for preference tuning; \
     expected `text`, `prompt` and `completion`, `messages`, or `instruction` and `output`";
const NO_PREFERENCE: &str = "expected rows of `prompt`, `chosen` and `rejected`";
const NO_PROMPT: &str = "expected rows with a prompt to mask, found rows of `text`";
