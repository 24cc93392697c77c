//! The messages of a chat request.

use openelm_core::chat::{Message, Role};
use serde_json::{Value, json};

use crate::{
    api_error::ApiError,
    fields::{Fields, expected},
};

/// The messages in the field `messages`. A content is a string, or a list of parts of text.
///
/// # Errors
/// If a message has another role, another content, or further fields.
pub(super) fn messages(value: Value) -> Result<Vec<Message>, ApiError> {
    let list = match value {
        Value::Array(list) => list,
        other => {
            let problem = expected("a list of messages", &other);
            return Err(ApiError::field("messages", problem));
        }
    };
    let all = (0..).zip(list);
    all.map(|(index, item): (usize, _)| {
        message(Fields::of_value(&format!("messages[{index}]"), item)?)
    })
    .collect()
}

fn message(mut fields: Fields) -> Result<Message, ApiError> {
    let missing = ApiError::field(fields.name("role"), "it is missing");
    let role = match &*fields.string("role")?.ok_or(missing)? {
        // OpenAI's newer name of the system's messages.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let problem = format!("expected system, user or assistant, found {other:?}");
            return Err(ApiError::field(fields.name("role"), problem));
        }
    };
    let name = fields.name("content");
    let content = match fields.value("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of_parts(&name, parts)?,
        Some(other) => return Err(ApiError::field(name, expected("a string", &other))),
        None => return Err(ApiError::field(name, "it is missing")),
    };
    fields.without_effect("tool_calls", &[json!([])])?;
    fields.finish()?;
    Ok(Message { role, content })
}

fn text_of_parts(name: &str, parts: Vec<Value>) -> Result<String, ApiError> {
    let mut content = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(&format!("{name}[{index}]"), part)?;
        let kind = part.string("type")?;
        if kind.as_deref() != Some("text") {
            let problem = "expected text: only text is supported";
            return Err(ApiError::field(part.name("type"), problem));
        }
        let missing = ApiError::field(part.name("text"), "it is missing");
        content += &part.string("text")?.ok_or(missing)?;
        part.finish()?;
    }
    Ok(content)
}
