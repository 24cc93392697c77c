//! The body of `POST /v1/chat/completions`.

use super::{
    messages::messages,
    prompts::PromptInput,
    text_request::{TextRequest, checked_top},
};
use crate::{api_error::ApiError, app::App, fields::Fields};

/// Reads the body of a chat request.
///
/// # Errors
/// The first field that is malformed, out of range or not supported.
pub(crate) fn chat_completion_request(body: &[u8], app: &App) -> Result<TextRequest, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let request = TextRequest::read(&mut fields, app)?;
    let reports = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs")?;
    if top.is_some() && !reports {
        return Err(ApiError::field(
            "top_logprobs",
            "no effect without logprobs",
        ));
    }
    let top = top
        .map(|top| checked_top("top_logprobs", top))
        .transpose()?;
    let missing = ApiError::field("messages", "it is missing");
    let value = fields.value("messages").ok_or(missing)?;
    fields.finish()?;
    let template = app.options.chat_template;
    let tokens = template.tokens(app.model.tokenizer(), &messages(value)?)?;
    let prompt = PromptInput { text: None, tokens };
    let logprobs = reports.then(|| top.unwrap_or(0));
    request
        .with_logprobs(logprobs)
        .with_prompts(vec![prompt], app)
}
