//! Fixes of single characters, and of terminal escapes.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use crate::{badness::expression, encodings::windows_1252};

/// Applies all fixes, in ftfy's order.
pub(crate) fn fix(text: String) -> String {
    if !text.chars().any(is_fixed) {
        return text;
    }
    let text = fix_c1(&text);
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match ligature(character) {
            Some(letters) => plain.push_str(letters),
            None if is_wide(character) => plain.extend(standard_width(character)),
            None => plain.push(character),
        }
    }
    let text: String = plain.chars().map(straight_quote).collect();
    let text = text.replace("\r\n", "\n");
    let text = text.replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| expression(r"\x1B\[[\p{Nd};]*[a-zA-Z]"));
    let text = ESCAPE.replace_all(&text, "");
    text.chars()
        .filter(|&character| !is_control(character))
        .collect()
}

/// True if `text` has C1 control characters.
pub(crate) fn has_c1(text: &str) -> bool {
    text.chars().any(is_c1)
}

/// Replaces C1 control characters by those of their bytes in Windows-1252, as browsers do.
pub(crate) fn fix_c1(text: &str) -> String {
    let replaced = |character| match u8::try_from(character) {
        Ok(byte @ 0x80..=0x9F) => windows_1252().character(byte),
        _ => character,
    };
    text.chars().map(replaced).collect()
}

/// True if one of the fixes may change the character.
fn is_fixed(character: char) -> bool {
    let breaks = ['\r', '\x1B', '\u{2028}', '\u{2029}'];
    is_c1(character)
        || ligature(character).is_some()
        || is_wide(character)
        || straight_quote(character) != character
        || breaks.contains(&character)
        || is_control(character)
}

fn is_c1(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{9F}')
}

/// The letters of a ligature of Latin letters.
fn ligature(character: char) -> Option<&'static str> {
    Some(match character {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        '\u{FB00}' => "ff",
        '\u{FB01}' => "fi",
        '\u{FB02}' => "fl",
        '\u{FB03}' => "ffi",
        '\u{FB04}' => "ffl",
        '\u{FB05}' => "ſt",
        '\u{FB06}' => "st",
        _ => return None,
    })
}

/// True for full-width and half-width forms, and the ideographic space.
fn is_wide(character: char) -> bool {
    matches!(character, '\u{3000}' | '\u{FF01}'..='\u{FFEF}')
}

fn standard_width(character: char) -> impl Iterator<Item = char> {
    let character = if character == '\u{3000}' {
        ' '
    } else {
        character
    };
    std::iter::once(character).nfkc()
}

fn straight_quote(character: char) -> char {
    match character {
        '\u{201C}'..='\u{201F}' => '"',
        '\u{2BC}' | '\u{2018}'..='\u{201B}' => '\'',
        _ => character,
    }
}

/// True for control characters without an effect on the text.
fn is_control(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x08'
            | '\x0B'
            | '\x0E'..='\x1F'
            | '\x7F'
            | '\u{206A}'..='\u{206F}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFC}'
    )
}
