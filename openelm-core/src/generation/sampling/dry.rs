//! DRY ("don't repeat yourself"): a penalty for tokens that extend a repeated sequence of tokens,
//! as in llama.cpp.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{
    additions::LARGEST,
    options::Sampling,
    repetition::last,
    sampler_vocabulary::{SamplerVocabulary, TokenBytes},
    text_end::TextEnd,
};
use crate::error::Result;

/// The penalty and the place of the last breaker.
#[derive(Debug, Clone)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    last_n: usize,
    breakers: Option<Breakers>,
}

/// Strings at which sequences begin anew.
#[derive(Debug, Clone)]
struct Breakers {
    tokens: Arc<TokenBytes>,
    /// True for tokens with a whole string, which are not penalised.
    whole: Arc<[bool]>,
    text: TextEnd,
    /// Number of tokens after the last string.
    tokens_after: usize,
}

impl Dry {
    /// The penalty at the start of a prompt; `None` if it is off.
    pub(super) fn new(
        sampling: &Sampling,
        vocabulary: &SamplerVocabulary<'_>,
    ) -> Result<Option<Self>> {
        if sampling.dry_multiplier == 0.0 {
            return Ok(None);
        }
        let strings = &sampling.dry_sequence_breakers;
        let breakers = if strings.is_empty() {
            None
        } else {
            let tokens = vocabulary.token_bytes("dry_sequence_breakers")?;
            let text = TextEnd::new(strings);
            Some(Breakers {
                whole: tokens.which(|bytes| text.is_in(bytes)).into(),
                tokens,
                text,
                tokens_after: 0,
            })
        };
        Ok(Some(Self {
            multiplier: sampling.dry_multiplier,
            base: sampling.dry_base,
            allowed_length: sampling.dry_allowed_length,
            last_n: sampling.dry_penalty_last_n.unwrap_or(usize::MAX),
            breakers,
        }))
    }

    /// Appends a token of the prompt or the text.
    pub(super) fn accept(&mut self, id: u32) {
        if let Some(breakers) = &mut self.breakers {
            let ends = breakers.text.push(breakers.tokens.of(id));
            breakers.tokens_after = if ends { 0 } else { breakers.tokens_after + 1 };
        }
    }

    /// Subtracts the penalties from the values `by_id`.
    pub(super) fn subtract(&self, history: &[u32], by_id: &mut BTreeMap<u32, f32>) {
        for (id, length) in self.repeats(history) {
            let excess = (length - self.allowed_length) as f32;
            let penalty = self.multiplier * self.base.powf(excess);
            *by_id.entry(id).or_default() -= penalty.min(LARGEST);
        }
    }

    /// The tokens that would extend a repeated sequence of at least the allowed length, with the
    /// length of the longest one.
    fn repeats(&self, history: &[u32]) -> BTreeMap<u32, usize> {
        let history = last(history, self.last_n);
        let limit = match &self.breakers {
            Some(breakers) => breakers.tokens_after.min(history.len()),
            None => history.len(),
        };
        let mut repeats = BTreeMap::new();
        if limit < self.allowed_length {
            return repeats;
        }
        let whole = |id: u32| {
            let breakers = self.breakers.as_ref();
            breakers.is_some_and(|b| b.whole.get(id as usize) == Some(&true))
        };
        for (&id, length) in history.iter().skip(1).zip(suffix_lengths(history)) {
            let length = length.min(limit);
            if length < self.allowed_length || whole(id) {
                continue;
            }
            match repeats.entry(id) {
                Entry::Vacant(entry) => _ = entry.insert(length),
                Entry::Occupied(mut entry) => {
                    let longest = length.max(*entry.get());
                    entry.insert(longest);
                }
            }
        }
        repeats
    }
}

/// For each position, the length of the longest sequence that ends there and at the end of
/// `tokens`, by the Z algorithm on the reversed tokens.
fn suffix_lengths(tokens: &[u32]) -> Vec<usize> {
    let count = tokens.len();
    let at = |index: usize| tokens[count - 1 - index];
    let mut lengths = vec![count; count];
    // The match that ends furthest, from `start` to before `end`.
    let (mut start, mut end) = (0, 0);
    for index in 1..count {
        let mut length = if index < end {
            lengths[index - start].min(end - index)
        } else {
            0
        };
        while index + length < count && at(length) == at(index + length) {
            length += 1;
        }
        if index + length > end {
            (start, end) = (index, index + length);
        }
        lengths[index] = length;
    }
    lengths.reverse();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dry(multiplier: f32, allowed_length: usize, last_n: Option<usize>) -> Dry {
        let sampling = Sampling {
            dry_multiplier: multiplier,
            dry_base: 1.1,
            dry_allowed_length: allowed_length,
            dry_penalty_last_n: last_n,
            dry_sequence_breakers: Vec::new(),
            ..Sampling::default()
        };
        let vocabulary = SamplerVocabulary {
            size: 8,
            tokenizer: None,
            end_tokens: &[],
        };
        Dry::new(&sampling, &vocabulary).unwrap().unwrap()
    }

    fn penalties(dry: &Dry, history: &[u32]) -> Vec<(u32, f32)> {
        let mut by_id = BTreeMap::new();
        dry.subtract(history, &mut by_id);
        by_id.into_iter().collect()
    }

    /// The cases of llama.cpp's `test-sampling.cpp`.
    #[test]
    fn penalises_as_llama_cpp() {
        assert_eq!(penalties(&dry(1.0, 2, Some(4)), &[0, 1]), []);
        assert_eq!(penalties(&dry(1.0, 2, None), &[0, 1, 2, 0, 1]), [(2, -1.0)]);
        assert_eq!(penalties(&dry(2.0, 2, None), &[0, 1, 2, 0, 1]), [(2, -2.0)]);
        assert_eq!(penalties(&dry(1.0, 4, None), &[0, 1, 2, 3, 4, 0, 1]), []);
    }

    #[test]
    fn penalty_grows_with_the_length() {
        let history = [7, 0, 1, 2, 3, 4, 1, 2, 5, 0, 1, 2];
        // `0 1 2` was followed by 3, and `1 2` by 5.
        assert_eq!(
            penalties(&dry(2.0, 2, None), &history),
            [(3, -2.0 * 1.1), (5, -2.0)]
        );
        assert_eq!(penalties(&dry(2.0, 2, Some(7)), &history), [(5, -2.0)]);
        assert_eq!(penalties(&dry(2.0, 3, None), &history), [(3, -2.0)]);
        let mut large = dry(f32::MAX, 1, None);
        large.base = f32::MAX;
        let all = penalties(&large, &history);
        assert!(all.iter().all(|(_, value)| *value == -1e9), "{all:?}");
    }

    #[test]
    fn breakers_limit_the_length() {
        let texts = ["a", "b", "c", ":", "x:y", "d"];
        let tokens = Arc::new(TokenBytes::of_texts(&texts));
        let text = TextEnd::new(&[":".to_owned(), "bc".to_owned()]);
        let mut dry = dry(1.0, 1, None);
        dry.breakers = Some(Breakers {
            whole: tokens.which(|bytes| text.is_in(bytes)).into(),
            tokens,
            text,
            tokens_after: 0,
        });
        let after = |history: &[u32]| {
            let mut dry = dry.clone();
            history.iter().for_each(|&id| dry.accept(id));
            penalties(&dry, history)
        };
        assert_eq!(after(&[0, 3, 5, 5, 0, 3, 5]), [(0, -1.0), (5, -1.0)]);
        // `b c` ends a sequence, and the breaker itself is not penalised.
        assert_eq!(after(&[0, 1, 2, 0, 1, 2]), []);
        assert_eq!(after(&[0, 4, 0]), []);
        assert_eq!(after(&[0, 5, 0]), [(5, -1.0)]);
    }

    #[test]
    fn suffix_lengths_equal_a_direct_search() {
        let mut state = 1_u64;
        for length in 0..40 {
            let tokens: Vec<u32> = (0..length)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 62) as u32 % 3
                })
                .collect();
            let direct = |end: usize| {
                let lengths = (0..=end).rev();
                let longest = lengths.map(|n| n + 1);
                let mut longest =
                    longest.filter(|&n| tokens[end + 1 - n..=end] == tokens[length - n..]);
                longest.next().unwrap_or(0)
            };
            let expected: Vec<usize> = (0..length).map(direct).collect();
            assert_eq!(suffix_lengths(&tokens), expected, "{tokens:?}");
        }
    }
}
