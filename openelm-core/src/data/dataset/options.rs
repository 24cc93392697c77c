//! The options of reading a file of rows, and the counts of the result.

use super::example::Example;
use crate::error::{Error, Result};

/// The treatment of a row with more than [`max_length`](DatasetOptions::max_length) tokens. It is
/// never cut off; both ways are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongRows {
    /// Split into windows that overlap by one token, so that every target is learnt exactly
    /// once. Windows without a target are left out. The default.
    #[default]
    Split,
    /// Left out.
    Drop,
}

/// The options of making examples from rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Most tokens of an example, BOS and EOS among them; at least 2. Default 2048.
    pub max_length: usize,
    /// Learn the completion only, or of a conversation its last answer. Default false, as in
    /// mlx-lm; rows of `text` have no prompt and are refused then.
    pub mask_prompt: bool,
    /// The treatment of rows with more tokens. Default [`LongRows::Split`]. A preference pair
    /// cannot be split: it is left out and counted if either side is too long.
    pub long_rows: LongRows,
    /// Keep every row whole, one example each, as mlx-lm does: too long rows are cut off in
    /// [`Batch::mlx_lm`](crate::data::batch::Batch::mlx_lm). Default false.
    pub mlx_lm_compat: bool,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        Self {
            max_length: 2048,
            mask_prompt: false,
            long_rows: LongRows::default(),
            mlx_lm_compat: false,
        }
    }
}

impl DatasetOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.max_length >= 2 {
            return Ok(());
        }
        Err(Error::option(
            "max_length",
            format!("expected at least 2 tokens, found {}", self.max_length),
        ))
    }
}

/// Counts of a file's rows and the examples made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of the file.
    pub rows: usize,
    /// Examples, or preference pairs.
    pub examples: usize,
    /// Tokens of all examples; of a pair, those of both sides.
    pub tokens: usize,
    /// Tokens that are targets of the loss.
    pub targets: usize,
    /// Rows that were split into windows.
    pub split: usize,
    /// Rows that were left out because they are too long.
    pub dropped: usize,
    /// Rows that are too long and will be cut off in their batch, as mlx-lm does; 0 unless
    /// [`mlx_lm_compat`](DatasetOptions::mlx_lm_compat) is set.
    pub truncated: usize,
}

impl Counts {
    pub(super) fn add(&mut self, example: &Example) {
        self.tokens = self.tokens.saturating_add(example.tokens.len());
        self.targets = self.targets.saturating_add(example.targets());
    }
}
