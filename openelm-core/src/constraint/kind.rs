//! The kinds of constraints on a text.

/// A constraint on a generated text. The whole text follows it, from its first character to the
/// end-of-sequence token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// The text is JSON that is valid under this JSON schema (a JSON text; drafts 4 to 2020-12).
    /// The members of an object have the order of the schema, and at most one space follows a
    /// comma or a colon. A keyword that is not supported is an error.
    JsonSchema(String),
    /// The whole text matches this regular expression, in the syntax of the crate `regex`: without
    /// look-around and back-references. Anchors are not needed.
    Regex(String),
    /// The text is a sentence of this grammar, in `llguidance`'s variant of Lark's syntax. The
    /// start rule is `start`.
    Grammar(String),
    /// The text is one of these strings.
    Choice(Vec<String>),
}

impl ConstraintKind {
    /// Name of the option: `json_schema`, `regex`, `grammar` or `choice`.
    pub fn option(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) => "json_schema",
            Self::Regex(_) => "regex",
            Self::Grammar(_) => "grammar",
            Self::Choice(_) => "choice",
        }
    }

    /// Length of its text in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::JsonSchema(text) | Self::Regex(text) | Self::Grammar(text) => text.len(),
            Self::Choice(choices) => choices.iter().map(String::len).sum(),
        }
    }
}
