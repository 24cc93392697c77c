//! A row of a file, before it is tokenised.

use crate::tokenizer::PromptParts;

/// The text of a row. A conversation is rendered as a completion.
pub(crate) enum Content {
    Text(String),
    Completion {
        prompt: PromptParts,
        completion: String,
    },
    Preference {
        prompt: PromptParts,
        chosen: String,
        rejected: String,
    },
}

/// A row.
pub(crate) struct Row {
    pub(crate) content: Content,
    /// Number of keys in the JSON.
    pub(crate) keys: usize,
}
