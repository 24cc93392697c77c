//! Repairs text as `ftfy.fix_text` 6.2 does with its default settings, which CoreNet used for the
//! text that OpenELM was trained on.
//!
//! A translation of [ftfy](https://github.com/rspeer/python-ftfy) by Robyn Speer, under ftfy's
//! licence, Apache-2.0; see `NOTICE`.
//!
//! ```
//! use openelm_fix_text::fix_text;
//!
//! assert_eq!(fix_text("âœ” No problems"), "✔ No problems");
//! assert_eq!(fix_text("it&#x2019;s ﬂubberiﬁc!"), "it's flubberific!");
//! assert_eq!(fix_text("ＬＯＵＤ　ＮＯＩＳＥＳ"), "LOUD NOISES");
//! ```

mod badness;
mod bytes;
mod characters;
mod encoding_fix;
mod encodings;
mod entities;

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Largest number of repairs of a segment, of which each can begin with the result of the one
/// before: `&amp;amp;` needs two. Bounds the time for text that is made for it.
const PASSES: usize = 100;
/// Largest number of characters that are repaired together.
const SEGMENT: usize = 1_000_000;

/// Repairs `text`, line by line: mojibake, C1 controls, ligatures of Latin letters, full-width and
/// half-width characters, curly quotes, line breaks, terminal escapes and control characters, and
/// normalizes it to NFC. HTML entities are decoded up to the first line with a `<`.
pub fn fix_text(text: &str) -> Cow<'_, str> {
    let mut unescapes = true;
    let mut fixed: Option<String> = None;
    let mut done = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let segment = first_segment(rest);
        unescapes &= !segment.contains('<');
        let found = fix_segment(segment, unescapes);
        match (&mut fixed, found) {
            (None, Cow::Borrowed(_)) => {}
            (Some(fixed), found) => fixed.push_str(&found),
            (none, Cow::Owned(found)) => {
                let begun = text.get(..done).unwrap_or_default();
                *none = Some(begun.to_owned() + &found);
            }
        }
        done += segment.len();
        rest = rest.get(segment.len()..).unwrap_or_default();
    }
    fixed.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The first line of `text` with its end, or as much of it as is repaired together.
fn first_segment(text: &str) -> &str {
    let end = text.find('\n').map_or(text.len(), |end| end + 1);
    let line = text.get(..end).unwrap_or(text);
    if line.len() <= SEGMENT {
        return line;
    }
    let end = line.char_indices().nth(SEGMENT).map(|(at, _)| at);
    end.and_then(|end| line.get(..end)).unwrap_or(line)
}

/// Repairs a segment until nothing changes, or [`PASSES`] times. The text is borrowed if it is unchanged.
fn fix_segment(segment: &str, unescapes: bool) -> Cow<'_, str> {
    if is_plain(segment, unescapes) {
        return Cow::Borrowed(segment);
    }
    let mut text = Cow::Borrowed(segment);
    for _ in 0..PASSES {
        let next = fix_once(&text, unescapes);
        if next == text {
            break;
        }
        text = Cow::Owned(next);
    }
    text
}

/// True for ASCII text that no fix changes.
fn is_plain(text: &str, unescapes: bool) -> bool {
    let is_plain = |byte: &u8| {
        matches!(byte, b' '..=b'~' | b'\t' | b'\n' | 0x0C) && (*byte != b'&' || !unescapes)
    };
    text.as_bytes().iter().all(is_plain)
}

fn fix_once(text: &str, unescapes: bool) -> String {
    let mut text = text.to_owned();
    if unescapes {
        text = entities::unescape(&text);
    }
    text = encoding_fix::fix(text);
    text = characters::fix(text);
    if is_nfc(&text) {
        text
    } else {
        text.nfc().collect()
    }
}

#[cfg(test)]
mod tests;
