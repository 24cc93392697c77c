//! Fields of a JSON row; errors name the key.

use serde_json::{Map, Value};

use crate::tokenizer::{Message, Role};

/// A row's keys and values.
pub(crate) type Object = Map<String, Value>;

/// Parses a line with a JSON object.
///
/// # Errors
/// The problem, with the column.
pub fn object(line: &str) -> Result<Map<String, Value>, String> {
    // Files that were joined have a byte order mark at the start of each.
    match serde_json::from_str(line.trim_start_matches('\u{FEFF}')) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("expected a JSON object, found {}", kind(&other))),
        Err(error) => {
            // serde_json counts lines from the start of the row.
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or_default();
            Err(format!(
                "malformed JSON at column {}: {problem}",
                error.column()
            ))
        }
    }
}

/// The value of `key`; null is absent.
pub(crate) fn optional<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// The value of `key`.
pub(crate) fn value<'a>(object: &'a Object, key: &str) -> Result<&'a Value, String> {
    optional(object, key).ok_or_else(|| format!("`{key}` is missing"))
}

/// The string at `key`, which may be empty.
pub(crate) fn string(object: &Object, key: &str) -> Result<String, String> {
    match value(object, key)? {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("`{key}`: expected a string, found {}", kind(other))),
    }
}

/// The string at `key`.
pub(crate) fn text(object: &Object, key: &str) -> Result<String, String> {
    let text = string(object, key)?;
    not_empty(&text, key)?;
    Ok(text)
}

pub(crate) fn not_empty(text: &str, key: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    Ok(())
}

/// The list of messages at `key`: objects with `role` and `content`.
///
/// # Errors
/// The problem, with the key and the message.
pub fn messages(list: &Value, key: &str) -> Result<Vec<Message>, String> {
    let Value::Array(list) = list else {
        return Err(format!(
            "`{key}`: expected a list of messages, found {}",
            kind(list)
        ));
    };
    list.iter()
        .zip(1..)
        .map(|(item, number): (_, usize)| {
            message(item).map_err(|problem| format!("`{key}`: message {number}: {problem}"))
        })
        .collect()
}

/// The messages before the last, and the last, which must be the assistant's.
pub(crate) fn with_answer(
    mut messages: Vec<Message>,
    key: &str,
) -> Result<(Vec<Message>, String), String> {
    let answer = match messages.pop() {
        Some(last) if last.role == Role::Assistant => last.content,
        Some(last) => {
            return Err(format!(
                "`{key}`: expected the role `assistant` in the last message, found `{}`",
                last.role.name()
            ));
        }
        None => return Err(format!("`{key}` is empty")),
    };
    if answer.is_empty() {
        return Err(format!("`{key}`: `content` of the last message is empty"));
    }
    Ok((messages, answer))
}

/// The kind of a value, for an error message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn message(item: &Value) -> Result<Message, String> {
    let Value::Object(item) = item else {
        return Err(format!("expected an object, found {}", kind(item)));
    };
    let role = match string(item, "role")?.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            return Err(format!(
                "`role`: expected `system`, `user` or `assistant`, found `{other}`"
            ));
        }
    };
    let content = string(item, "content")?;
    Ok(Message { role, content })
}
