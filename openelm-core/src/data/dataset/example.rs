//! A row as token ids.

/// Token ids to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// At least two ids; of a whole row, from BOS to EOS.
    pub tokens: Vec<u32>,
    /// Index in `tokens` of the first token that is a target of the loss, at least 1: nothing
    /// predicts the first token. Every token from there on is one.
    pub first_target: usize,
}

impl Example {
    /// Number of tokens that are targets of the loss.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.first_target.max(1))
    }
}

/// Two answers to one prompt. Both sides begin with the same ids; their targets are the answers
/// alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferencePair {
    /// The prompt with the better answer.
    pub chosen: Example,
    /// The prompt with the worse answer.
    pub rejected: Example,
}
