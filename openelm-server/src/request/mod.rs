//! Requests: the fields of a body become the options of generations.

mod adapters;
mod chat_completion;
mod completion;
mod generation_options;
mod messages;
mod prompts;
mod structured_output;
mod text_request;

pub(crate) use chat_completion::chat_completion_request;
pub(crate) use completion::completion_request;
pub(crate) use prompts::token_ids;
pub(crate) use text_request::TextRequest;
