//! Responses: the events of generations become texts in OpenAI's shapes.

mod choice;
mod logprobs;
mod shape;
mod text_response;
mod usage;

pub(crate) use shape::Shape;
pub(crate) use text_response::respond;
