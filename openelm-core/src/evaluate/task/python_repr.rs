//! Values of templates as Python writes them: `str` and `repr`.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};

/// Deepest nesting of a list.
const MAX_DEPTH: usize = 64;

/// `str(value)`: text as it is, other values as in Python; `None` if an item is undefined.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value.as_str() {
        Some(text) => Some(text.to_owned()),
        None => {
            let mut text = String::new();
            write_repr(value, &mut text, 0)?;
            Some(text)
        }
    }
}

fn write_repr(value: &Value, out: &mut String, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return Some(());
    }
    match value.kind() {
        ValueKind::Undefined => return None,
        ValueKind::String => write_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Bool if value.is_true() => out.push_str("True"),
        ValueKind::Bool => out.push_str("False"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (position, item) in value.try_iter().into_iter().flatten().enumerate() {
                if position > 0 {
                    out.push_str(", ");
                }
                write_repr(&item, out, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (position, key) in value.try_iter().into_iter().flatten().enumerate() {
                if position > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, out, depth + 1)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key).ok()?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => write!(out, "{value}").ok()?,
    }
    Some(())
}

fn write_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => {
                out.push('\\');
                out.push(quote);
            }
            ' ' => out.push(' '),
            _ if character.is_control() || character.is_whitespace() => {
                let code = u32::from(character);
                _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    _ => write!(out, "\\u{code:04x}"),
                };
            }
            _ => out.push(character),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_python() {
        let value = |json: &str| {
            let items: Vec<Value> = serde_json::from_str::<Vec<String>>(json)
                .unwrap()
                .into_iter()
                .map(Value::from)
                .collect();
            text_of(&Value::from(items)).unwrap()
        };
        let written = value(r#"["a'b", "c\"d", "e'\"f", "\n\\\u0085\u2028 é"]"#);
        assert_eq!(written, r#"["a'b", 'c"d', 'e\'"f', '\n\\\x85\u2028 é']"#);
        let none = Value::from(vec![Value::from(()), Value::from(true), Value::from(1.0)]);
        assert_eq!(text_of(&none).unwrap(), "[None, True, 1.0]");
        assert_eq!(text_of(&Value::from(vec![Value::UNDEFINED])), None);
    }
}
