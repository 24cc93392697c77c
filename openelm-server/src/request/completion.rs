//! The body of `POST /v1/completions`.

use super::{
    prompts::prompts,
    text_request::{TextRequest, checked_top},
};
use crate::{api_error::ApiError, app::App, fields::Fields};

/// Reads the body of a completion request.
///
/// # Errors
/// The first field that is malformed, out of range or not supported.
pub(crate) fn completion_request(body: &[u8], app: &App) -> Result<TextRequest, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let request = TextRequest::read(&mut fields, app)?;
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let top = fields.count("logprobs")?;
    let top = top.map(|top| checked_top("logprobs", top)).transpose()?;
    let missing = ApiError::field("prompt", "it is missing");
    let prompt = fields.value("prompt").ok_or(missing)?;
    fields.finish()?;
    let mut request = request.with_logprobs(top);
    request.echo = echo;
    request.options.prompt_logprobs = echo && top.is_some();
    request.with_prompts(prompts(prompt, app)?, app)
}
