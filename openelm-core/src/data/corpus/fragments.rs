//! Fragments of documents: split by words, character count, Unicode normalization.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The end of the fragment that begins at byte `start` of `text`, and the start of the next one, if
/// any. Words are the results of Python's `text.split(' ')`.
pub(crate) fn end(text: &str, start: usize, words: usize) -> (usize, Option<usize>) {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    let mut spaces = rest.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    match spaces.nth(words.saturating_sub(1)) {
        Some((at, _)) => (start + at, Some(start + at + 1)),
        None => (text.len(), None),
    }
}

/// Number of characters as SlimPajama counts them: of the lower-cased text without ASCII
/// punctuation, with white space trimmed at both ends and collapsed to one space inside.
pub(crate) fn characters(text: &str) -> usize {
    let mut count = 0;
    let mut gap = false;
    for character in text.chars().filter(|c| !c.is_ascii_punctuation()) {
        if is_space(character) {
            gap = count > 0;
        } else {
            count += usize::from(gap) + character.to_lowercase().count();
            gap = false;
        }
    }
    count
}

/// The text normalized to NFC.
pub(crate) fn normalized(text: &str) -> Cow<'_, str> {
    if is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// The text as the tokenizer gets it: repaired if `clean_text`, which includes NFC, else normalized
/// to NFC.
pub(crate) fn prepared(text: &str, clean_text: bool) -> Cow<'_, str> {
    if clean_text {
        openelm_fix_text::fix_text(text)
    } else {
        normalized(text)
    }
}

/// White space as in Python's `str.isspace` and `\s`: Unicode's, and four separators.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, words: usize) -> Vec<&str> {
        let mut found = Vec::new();
        let mut start = Some(0);
        while let Some(at) = start {
            let (end, next) = end(text, at, words);
            found.push(&text[at..end]);
            start = next;
        }
        found
    }

    #[test]
    fn splits_at_single_spaces() {
        // [' '.join(w[i:i + 2]) for w in [text.split(' ')] for i in range(0, len(w), 2)]
        assert_eq!(split("a b c", 2), ["a b", "c"]);
        assert_eq!(split("a b c d", 2), ["a b", "c d"]);
        assert_eq!(split("a  b\nc ", 2), ["a ", "b\nc "]);
        assert_eq!(split("a b ", 2), ["a b", ""]);
        assert_eq!(split("", 2), [""]);
        assert_eq!(split("a b c", 1), ["a", "b", "c"]);
    }

    #[test]
    fn counts_characters_as_python() {
        for (text, count) in [
            ("", 0),
            (" \n ", 0),
            ("a", 1),
            ("  A,  b.\u{1F}\u{A0}c ", 5),
            ("...a - b...", 3),
            // 'İ'.lower() has two characters; '…' and '—' are not ASCII punctuation.
            ("İ…—", 4),
            ("Straße ΣΑΣ", 10),
            ("\u{200B}x\u{85}y", 4),
        ] {
            assert_eq!(characters(text), count, "{text:?}");
        }
    }

    #[test]
    fn normalizes_text_to_nfc_only() {
        assert_eq!(normalized("e\u{301}\u{212B}ﬁ"), "é\u{C5}ﬁ");
        assert!(matches!(normalized("é"), Cow::Borrowed("é")));
        // Hangul; a singleton; combining marks in canonical order.
        assert_eq!(normalized("\u{1112}\u{1161}\u{11AB}"), "한");
        assert_eq!(normalized("q\u{307}\u{323}"), "q\u{323}\u{307}");
    }
}
