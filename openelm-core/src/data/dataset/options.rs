//! Options of reading a file of rows, and the counts of the result.

use super::example::Example;
use crate::{
    error::{Error, Result},
    tokenizer::ChatTemplate,
};

/// The treatment of a row with more than [`max_length`](DatasetOptions::max_length) tokens. Rows
/// are never cut off; both treatments are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongRows {
    /// Split into windows that overlap by one token, so that every target occurs exactly once.
    /// Windows without a target are dropped. The default.
    #[default]
    Split,
    /// Drop the row.
    Drop,
}

/// Options of making examples from rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Largest number of tokens per example, including BOS and EOS; at least 2. Default 2048.
    pub max_length: usize,
    /// Train completions only; in a conversation, the last answer only. Default false, as in
    /// mlx-lm; rows of `text` have no prompt and are then refused.
    pub mask_prompt: bool,
    /// The treatment of longer rows. Default [`LongRows::Split`]. A preference pair cannot be
    /// split: it is dropped and counted if either side is too long.
    pub long_rows: LongRows,
    /// Template of rows of messages, of preferences and of instructions. Default: that of
    /// OpenELM-Instruct, for which CoreNet made it; for instructions CoreNet's own
    /// ([`ChatTemplate::Instruction`]). Other rows refuse it.
    pub chat_template: Option<ChatTemplate>,
    /// Repair each text of a row as `ftfy.fix_text` does, as CoreNet; see
    /// [`CorpusOptions::clean_text`](crate::corpus::CorpusOptions::clean_text). Default false: the
    /// text stays as it is.
    pub clean_text: bool,
    /// Largest number of tokens of a preference pair's prompt, of a pair that is longer than
    /// [`max_length`](Self::max_length) with its prompt and the longer answer: the prompt is cut off
    /// at its start, and if that is not enough, both answers are cut off after `max_length` less
    /// this number, as in TRL (`truncation_mode = "keep_end"`). Default `None`: such pairs are
    /// dropped.
    pub max_prompt_length: Option<usize>,
    /// Keep every row as one example, as mlx-lm does: [`Batch::mlx_lm`] cuts off long rows.
    /// Default false.
    ///
    /// [`Batch::mlx_lm`]: crate::data::batch::Batch::mlx_lm
    pub mlx_lm_compat: bool,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        Self {
            max_length: 2048,
            mask_prompt: false,
            long_rows: LongRows::default(),
            chat_template: None,
            clean_text: false,
            max_prompt_length: None,
            mlx_lm_compat: false,
        }
    }
}

impl DatasetOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.max_length < 2 {
            let problem = format!("expected at least 2 tokens, found {}", self.max_length);
            return Err(Error::option("max_length", problem));
        }
        match self.max_prompt_length {
            Some(found) if !(1..self.max_length).contains(&found) => {
                let most = self.max_length - 1;
                let problem =
                    format!("expected 1 to {most}, below the length of a row, found {found}");
                Err(Error::option("max_prompt_length", problem))
            }
            _ => Ok(()),
        }
    }
}

/// Counts of a file's rows and the examples made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of rows in the file.
    pub rows: usize,
    /// Examples, or preference pairs.
    pub examples: usize,
    /// Tokens of all examples, with both sides of each pair.
    pub tokens: usize,
    /// Tokens that are targets of the loss.
    pub targets: usize,
    /// Rows that were split into windows.
    pub split: usize,
    /// Rows that were dropped because they are too long.
    pub dropped: usize,
    /// Long rows that the batch will cut off, as mlx-lm does, with
    /// [`mlx_lm_compat`](DatasetOptions::mlx_lm_compat); pairs that were cut off, with
    /// [`max_prompt_length`](DatasetOptions::max_prompt_length).
    pub truncated: usize,
}

impl Counts {
    pub(super) fn add(&mut self, example: &Example) {
        self.tokens = self.tokens.saturating_add(example.tokens.len());
        self.targets = self.targets.saturating_add(example.targets());
    }
}
