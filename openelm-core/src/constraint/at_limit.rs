//! The end of a constrained text at the limit of its tokens.

/// The end of a text that follows a constraint and reaches the limit of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AtLimit {
    /// The text ends there; it may be incomplete. The default.
    #[default]
    Stop,
    /// An incomplete text is an error.
    Error,
    /// The last tokens close what is open, by a greedy choice; a text that cannot be closed so is
    /// an error.
    Close,
}
