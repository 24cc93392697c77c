//! The models that a conversion reads, in any format, by Hugging Face's tensor names.

mod check;
mod open;
mod source_model;

pub(crate) use open::CORENET_WEIGHTS;
pub(crate) use source_model::{Precision, SourceModel};
