//! The one error enum of the crate, its kinds, texts and remedies.

mod error;
mod kind;
pub(crate) mod mlx_reason;
mod one_line;
mod remedy;
mod run_difference;
mod text;

pub use error::{Error, Result};
pub use kind::ErrorKind;
pub use one_line::one_line;
pub use remedy::Remedy;
pub use run_difference::RunDifference;
