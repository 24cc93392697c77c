//! HTML entities and character references that end in a semicolon.

use std::{collections::HashMap, sync::LazyLock};

use regex::{Captures, Regex};

use crate::{badness::expression, encodings::windows_1252};

/// Names and the code points of their characters: those of HTML 5, and in upper case those of which
/// HTML has none. A line per name, written by `parity/clean_text.py`.
const NAMES: &str = include_str!("entities.txt");

static ENTITIES: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    let entity = |line: &'static str| {
        let (name, numbers) = line.split_once(' ')?;
        let character = |number| char::from_u32(u32::from_str_radix(number, 16).ok()?);
        let characters: Option<String> = numbers.split(' ').map(character).collect();
        Some((name, characters?))
    };
    NAMES.lines().filter_map(entity).collect()
});

/// Decodes the entities of `text`.
pub(crate) fn unescape(text: &str) -> String {
    static ENTITY: LazyLock<Regex> = LazyLock::new(|| expression("&(?:#?)([0-9A-Za-z]{1,24});"));
    if !text.contains('&') {
        return text.to_owned();
    }
    let replaced = ENTITY.replace_all(text, |found: &Captures<'_>| {
        let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else {
            return String::new();
        };
        let decoded = if whole.as_str().starts_with("&#") {
            number(name.as_str())
        } else {
            ENTITIES.get(name.as_str()).cloned()
        };
        decoded.unwrap_or_else(|| whole.as_str().to_owned())
    });
    replaced.into_owned()
}

/// The text of a number as in Python's `html.unescape`; `None` if it is no number, or the number of
/// the semicolon, which ftfy takes for a part that was left.
fn number(digits: &str) -> Option<String> {
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = u128::from_str_radix(digits, radix).ok()?;
    let text = match u32::try_from(number) {
        Ok(0) => "\u{FFFD}".to_owned(),
        Ok(0x0D) => "\r".to_owned(),
        Ok(0x3B) => return None,
        Ok(byte @ 0x80..=0x9F) => {
            let byte = u8::try_from(byte).unwrap_or_default();
            windows_1252().character(byte).to_string()
        }
        Ok(0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF) => String::new(),
        Ok(number @ ..=0x10_FFFF) if number & 0xFFFE == 0xFFFE => String::new(),
        Ok(number) => char::from_u32(number).unwrap_or('\u{FFFD}').to_string(),
        Err(_) => "\u{FFFD}".to_owned(),
    };
    Some(text)
}
