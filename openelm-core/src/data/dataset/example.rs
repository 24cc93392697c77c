//! A row as token ids.

/// Token ids to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// At least two ids; a whole row starts with BOS and ends with EOS.
    pub tokens: Vec<u32>,
    /// Index in `tokens` of the first target of the loss, at least 1: the first token has no
    /// prediction. All later tokens are targets.
    pub first_target: usize,
}

impl Example {
    /// Number of tokens that are targets of the loss.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.first_target.max(1))
    }
}

/// Two answers to one prompt. Both sides begin with the same ids; only the answers are
/// targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferencePair {
    /// The prompt with the better answer.
    pub chosen: Example,
    /// The prompt with the worse answer.
    pub rejected: Example,
}
