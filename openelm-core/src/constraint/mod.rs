//! Structured output: texts that follow a JSON schema, a regular expression, a Lark grammar or a
//! list of choices. Masks of tokens come from the library `llguidance`.

mod at_limit;
mod closing;
mod compiler;
mod constraint;
mod grammar;
mod json_schema;
mod kind;
mod mask;
mod vocabulary;

pub use at_limit::AtLimit;
pub use constraint::Constraint;
pub use kind::ConstraintKind;
pub use mask::TokenMask;
