//! The prompts of a completion request: texts or token ids.

use serde_json::Value;

use crate::{api_error::ApiError, app::App, fields::expected};

/// Largest number of prompts of a request.
const MAX_PROMPTS: usize = 2048;

const RANGE: &str = "a string, a list of strings, a list of token ids, or a list of such lists";

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptInput {
    /// The text; `None` for token ids.
    pub(crate) text: Option<String>,
    /// The token ids. Those of a text begin with BOS.
    pub(crate) tokens: Vec<u32>,
}

/// The prompts in the field `prompt`.
///
/// # Errors
/// If it has another type, is empty, or cannot be encoded.
pub(super) fn prompts(value: Value, app: &App) -> Result<Vec<PromptInput>, ApiError> {
    let list = match value {
        Value::String(text) => return Ok(vec![of_text(text, app)?]),
        Value::Array(list) => list,
        other => return Err(ApiError::field("prompt", expected(RANGE, &other))),
    };
    match list.first() {
        None => return Err(ApiError::field("prompt", "it is empty")),
        Some(Value::Number(_)) => return Ok(vec![of_ids("prompt", &list)?]),
        Some(_) if list.len() > MAX_PROMPTS => {
            let problem = format!("expected at most {MAX_PROMPTS}, found {}", list.len());
            return Err(ApiError::field("prompt", problem));
        }
        Some(_) => {}
    }
    let prompts = (0..).zip(list).map(|(index, item): (usize, _)| match item {
        Value::String(text) => of_text(text, app),
        Value::Array(ids) => of_ids(&format!("prompt[{index}]"), &ids),
        other => Err(ApiError::field("prompt", expected(RANGE, &other))),
    });
    prompts.collect()
}

/// Token ids in the field `name`.
pub(crate) fn token_ids(name: &str, list: &[Value]) -> Result<Vec<u32>, ApiError> {
    let ids = list.iter().map(|id| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.ok_or_else(|| ApiError::field(name, expected("token ids", id)))
    });
    ids.collect()
}

fn of_text(text: String, app: &App) -> Result<PromptInput, ApiError> {
    let tokens = app.model.tokenizer().encode_prompt(&text)?;
    Ok(PromptInput {
        text: Some(text),
        tokens,
    })
}

fn of_ids(name: &str, list: &[Value]) -> Result<PromptInput, ApiError> {
    let tokens = token_ids(name, list)?;
    if tokens.is_empty() {
        return Err(ApiError::field(name, "it is empty"));
    }
    Ok(PromptInput { text: None, tokens })
}
