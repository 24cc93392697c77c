//! The prompt of a generation.

/// The prompt of a generation on the engine's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A text; BOS is prepended.
    Text(String),
    /// Token ids, which are read as they are: BOS is not added.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// The text; empty for token ids.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Tokens(_) => "",
        }
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Prompt {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}
