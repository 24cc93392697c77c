//! Splits text into words, the units of BPE training: pieces do not cross their boundaries.

use std::collections::{BTreeMap, HashMap};

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The space character of LLaMA's vocabulary.
const SPACE: char = '▁';

/// Longest word in characters; a longer one, such as a text without spaces, becomes several.
const LONGEST: usize = 1024;

/// The count of each word in the text.
#[derive(Default)]
pub(super) struct Words {
    counts: HashMap<String, u64>,
    characters: u64,
}

impl Words {
    /// Adds a document.
    pub(super) fn add(&mut self, text: &str) {
        if is_nfc(text) {
            self.split_text(text);
        } else {
            self.split_text(&text.nfc().collect::<String>());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Number of characters in the text.
    pub(super) fn characters(&self) -> u64 {
        self.characters
    }

    /// The characters that cover the fraction `coverage` of the text, by code point: the most
    /// frequent ones; ties go to the lower code point. The space is always included.
    pub(super) fn alphabet(&self, coverage: f64) -> Vec<char> {
        let mut counts: BTreeMap<char, u64> = BTreeMap::new();
        for (word, count) in &self.counts {
            for character in word.chars().filter(|&c| c != SPACE) {
                *counts.entry(character).or_default() += count;
            }
        }
        let total: u64 = counts.values().sum();
        let mut by_count: Vec<_> = counts.into_iter().collect();
        by_count.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        let target = total as f64 * coverage;
        let mut covered = 0_u64;
        let mut alphabet = vec![SPACE];
        for (character, count) in by_count {
            if coverage < 1.0 && covered as f64 >= target {
                break;
            }
            covered += count;
            alphabet.push(character);
        }
        alphabet.sort_unstable();
        alphabet
    }

    /// The words as ids of their characters, with their counts, sorted. A character without an id,
    /// which will be encoded as bytes, ends one word and begins the next.
    pub(super) fn split(self, ids: &HashMap<char, u32>) -> Vec<(Vec<u32>, u64)> {
        let mut parts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
        for (word, count) in self.counts {
            let mut part = Vec::new();
            for character in word.chars() {
                match ids.get(&character) {
                    Some(&id) => part.push(id),
                    None => keep(&mut parts, std::mem::take(&mut part), count),
                }
            }
            keep(&mut parts, part, count);
        }
        parts.into_iter().collect()
    }

    fn split_text(&mut self, text: &str) {
        let mut word = String::new();
        let mut last = None;
        // A text begins as if after a space, as in encoding.
        let begin = (!text.is_empty()).then_some(' ');
        for character in begin.into_iter().chain(text.chars()) {
            let kind = Kind::of(character);
            let goes_on = match (last, kind) {
                // A space belongs to the next character; of several spaces, the last one does.
                (Some(Kind::Space), Kind::Letter | Kind::Mark) => true,
                (Some(last), kind) => last == kind && kind != Kind::Digit,
                (None, _) => true,
            };
            if !goes_on {
                self.count(&word);
                word.clear();
            } else if last == Some(Kind::Space)
                && kind != Kind::Space
                && word.len() > SPACE.len_utf8()
            {
                // `▁▁▁word` is `▁▁` and `▁word`.
                let spaces = word.len() - SPACE.len_utf8();
                self.count(&word[..spaces]);
                word.replace_range(..spaces, "");
            }
            if kind != Kind::Control {
                word.push(if character == ' ' { SPACE } else { character });
            }
            last = Some(kind);
        }
        self.count(&word);
        self.characters += text.chars().count() as u64;
    }

    fn count(&mut self, word: &str) {
        let mut rest = word;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST);
            let (part, more) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
            match self.counts.get_mut(part) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(part.to_owned(), 1);
                }
            }
            rest = more;
        }
    }
}

/// The kind of a character; a piece is of one kind, with an optional leading space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Digit,
    /// Not part of any piece.
    Control,
    /// Punctuation, symbols, other space.
    Mark,
}

impl Kind {
    fn of(character: char) -> Self {
        match character {
            ' ' => Self::Space,
            // Written in the text it would be decoded as a space.
            SPACE => Self::Control,
            c if c.is_control() => Self::Control,
            c if c.is_numeric() => Self::Digit,
            c if c.is_alphabetic() || unicode_normalization::char::is_combining_mark(c) => {
                Self::Letter
            }
            _ => Self::Mark,
        }
    }
}

fn keep(parts: &mut BTreeMap<Vec<u32>, u64>, part: Vec<u32>, count: u64) {
    if !part.is_empty() {
        *parts.entry(part).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(String, u64)> {
        let mut words = Words::default();
        words.add(text);
        let mut counts: Vec<_> = words.counts.into_iter().collect();
        counts.sort();
        counts
    }

    #[test]
    fn words_have_one_kind_and_a_leading_space() {
        let found = words("Don't,  stop\n\n at (10) a");
        let found: Vec<_> = found
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        let mut expected = vec![
            ("▁Don", 1),
            ("'", 1),
            ("t", 1),
            (",", 1),
            ("▁", 1),
            ("▁stop", 1),
            ("▁at", 1),
            ("▁(", 1),
            ("1", 1),
            ("0", 1),
            (")", 1),
            ("▁a", 1),
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn normalizes_to_nfc_and_keeps_marks() {
        assert_eq!(words("cafe\u{301}"), [("▁café".to_owned(), 1)]);
        assert_eq!(words("न्म"), [("▁न्म".to_owned(), 1)]);
        assert_eq!(words(""), []);
        assert_eq!(words("    ")[0], ("▁▁▁▁▁".to_owned(), 1));
    }

    #[test]
    fn long_words_are_split() {
        // The first has the leading space.
        let found = words(&"漢".repeat(3_000));
        let found: Vec<_> = found
            .iter()
            .map(|(word, count)| (word.chars().count(), *count))
            .collect();
        assert_eq!(found, [(1_024, 1), (953, 1), (1_024, 1)]);
    }

    #[test]
    fn characters_without_an_id_split_words() {
        let mut words = Words::default();
        words.add("abxab ab");
        let ids = HashMap::from([('▁', 0), ('a', 1), ('b', 2)]);
        assert_eq!(words.split(&ids), [(vec![0, 1, 2], 2), (vec![1, 2], 1)]);
    }
}
