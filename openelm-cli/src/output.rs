//! Output to standard output and standard error. Write failures (a full disk) are errors, not
//! panics.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use openelm_core::one_line;

use crate::error::Error;

/// Writes and flushes, so that streamed text appears at once.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(Error::Output)
}

/// Writes generated text. A terminal gets controls as escapes, except line breaks and tabs: a
/// vocabulary may contain terminal commands, and controls that reverse the order of the characters
/// after them. A pipe or file gets the exact text.
pub(crate) fn write_text(text: &str) -> Result<(), Error> {
    if io::stdout().is_terminal() {
        write(for_terminal(text).as_bytes())
    } else {
        write(text.as_bytes())
    }
}

fn for_terminal(text: &str) -> Cow<'_, str> {
    let is_command = |c: char| match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_command(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Writes one JSON object on a line. Controls that JSON allows in strings (DEL and the C1 range)
/// become escapes of the same value.
pub(crate) fn write_json(value: &serde_json::Value) -> Result<(), Error> {
    write(json_line(value).as_bytes())
}

/// The line of [`write_json`].
pub(crate) fn json_line(value: &serde_json::Value) -> String {
    without_controls(&value.to_string()) + "\n"
}

/// JSON without spaces between symbols, whose controls in strings become escapes of the same value.
pub(crate) fn without_controls(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

/// Prints one line on standard error, made safe and short as in [`one_line`]. Write errors are
/// ignored.
pub(crate) fn note(text: &str) {
    let mut line = one_line(text);
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A size in bytes with three digits and a decimal unit, as in mlx-lm.
pub(crate) fn bytes(size: u64) -> String {
    let size = size as f64;
    for (unit, name) in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if size >= unit {
            let value = size / unit;
            let decimals = if value < 10.0 {
                2
            } else {
                usize::from(value < 100.0)
            };
            return format!("{value:.decimals$} {name}");
        }
    }
    format!("{size} bytes")
}

/// An integer with thousands separators.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(16_128), "16.1 kB");
        assert_eq!(bytes(543_054_336), "543 MB");
        assert_eq!(bytes(1_086_108_672), "1.09 GB");
    }

    #[test]
    fn a_terminal_gets_no_commands() {
        let text = "a\tb\n\u{1b}[2J\r\u{9b}1m\u{7f}é\u{202e}\u{2066}";
        let expected = "a\tb\n\\u{1b}[2J\\r\\u{9b}1m\\u{7f}é\\u{202e}\\u{2066}";
        assert_eq!(for_terminal(text), expected);
        assert_eq!(for_terminal("plain é\n"), "plain é\n");
        let value = serde_json::json!({ "text": text });
        let line = json_line(&value);
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            value
        );
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(271_527_168), "271,527,168");
    }
}
