//! A row of a file, before it is tokenised.

/// The text of a row. A conversation is rendered as a completion.
pub(crate) enum Content {
    Text(String),
    Completion {
        prompt: String,
        completion: String,
    },
    Preference {
        prompt: String,
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
