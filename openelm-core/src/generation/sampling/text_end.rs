//! The end of a text, to find strings that cross tokens.

use std::{collections::HashSet, sync::Arc};

/// The end of a text, as long as one of `strings` may need it.
#[derive(Debug, Clone)]
pub(super) struct TextEnd {
    strings: Arc<HashSet<Box<[u8]>>>,
    longest: usize,
    /// Fewer bytes than the longest string.
    end: Vec<u8>,
}

impl TextEnd {
    /// The end of an empty text. No string is empty.
    pub(super) fn new(strings: &[String]) -> Self {
        let longest = strings.iter().map(String::len).max().unwrap_or(1);
        let strings = strings.iter().map(|string| string.as_bytes().into());
        Self {
            strings: Arc::new(strings.collect()),
            longest,
            end: Vec::new(),
        }
    }

    /// True if `bytes` alone contain one of the strings. The time depends on the length of `bytes`
    /// alone.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let mut lengths = 1..=self.longest.min(bytes.len());
        lengths.any(|length| {
            bytes
                .windows(length)
                .any(|part| self.strings.contains(part))
        })
    }

    /// Appends `bytes` to the text; true if one of the strings ends in them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let before = self.end.len();
        self.end.extend_from_slice(bytes);
        let found = self.strings.iter().any(|string| {
            let first = (before + 1).saturating_sub(string.len());
            let mut parts = self.end[first..].windows(string.len());
            !bytes.is_empty() && parts.any(|part| part == &**string)
        });
        let dropped = self.end.len().saturating_sub(self.longest - 1);
        self.end.drain(..dropped);
        found
    }

    /// The parts of strings, of up to `most` bytes, that are missing after this text: a next token
    /// that begins with one completes a string.
    pub(super) fn missing(&self, most: usize) -> HashSet<&[u8]> {
        let mut missing = HashSet::new();
        for string in self.strings.iter() {
            for length in string.len().saturating_sub(most).max(1)..string.len() {
                let (present, rest) = string.split_at(length);
                if self.end.ends_with(present) {
                    missing.insert(rest);
                }
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_end(strings: &[&str]) -> TextEnd {
        let strings: Vec<String> = strings.iter().map(|&string| string.to_owned()).collect();
        TextEnd::new(&strings)
    }

    #[test]
    fn finds_strings_across_tokens() {
        let mut end = text_end(&["abab", "é"]);
        let found = ["xab", "", "ab", "ab", "b", "\u{e9}"].map(|part| end.push(part.as_bytes()));
        assert_eq!(found, [false, false, true, true, false, true]);
        let [first, second] = [0xc3, 0xa9_u8];
        assert_eq!([end.push(&[first]), end.push(&[second])], [false, true]);
        assert!(end.is_in(b"xababx") && !end.is_in(b"aba"));
    }

    #[test]
    fn lists_parts_that_complete_a_string() {
        let mut end = text_end(&["abab", "bc", "x"]);
        assert!(end.missing(9).is_empty());
        end.push(b"aab");
        assert_eq!(end.missing(2), HashSet::from([&b"ab"[..], b"c"]));
        assert_eq!(end.missing(1), HashSet::from([&b"c"[..]]));
        end.push(b"a");
        assert_eq!(end.missing(9), HashSet::from([&b"bab"[..], b"b"]));
    }
}
