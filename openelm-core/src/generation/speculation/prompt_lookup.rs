//! Prompt lookup: drafts from an earlier occurrence of the last tokens, as Hugging Face's
//! `prompt_lookup_num_tokens`.

use super::drafter::Drafter;
use crate::{error::Result, generation::sampling::Sampler};

/// Longest and shortest sequence of last tokens that is looked up. Hugging Face's
/// `max_matching_ngram_size` is 2 by default; a single token rarely predicts the next ones.
const NGRAM: (usize, usize) = (3, 2);

/// Finds drafts in the prompt and the text.
#[derive(Debug)]
pub(super) struct PromptLookup;

impl Drafter for PromptLookup {
    fn read_prompt(&mut self, _known: &[u32]) -> Result<()> {
        Ok(())
    }

    fn expects(&self, known: &[u32]) -> bool {
        // The first token is the one that the device computes now.
        continuation(known).len() > 1
    }

    fn propose(&mut self, known: &[u32], _sampler: &Sampler, most: usize) -> Result<Vec<u32>> {
        let found = continuation(known);
        Ok(found[..most.min(found.len())].to_vec())
    }

    fn cost(&self) -> f32 {
        0.0
    }
}

/// The tokens after the first earlier occurrence of the longest n-gram at the end of `known`; empty
/// if there is none.
fn continuation(known: &[u32]) -> &[u32] {
    let (longest, shortest) = NGRAM;
    for n in (shortest..=longest).rev() {
        let Some(start) = known.len().checked_sub(n) else {
            continue;
        };
        let (earlier, ngram) = (&known[..known.len() - 1], &known[start..]);
        if let Some(found) = earlier.windows(n).position(|window| window == ngram) {
            return &known[found + n..];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_occurrence_of_the_longest_ngram() {
        for (known, expected) in [
            (&[][..], &[][..]),
            (&[1], &[]),
            (&[1, 2], &[]),
            (&[1, 2, 3], &[]),
            // One equal token is not enough.
            (&[1, 2, 1], &[]),
            (&[1, 2, 3, 1, 2], &[3, 1, 2]),
            (&[1, 2, 3, 1, 2, 4, 1, 2], &[3, 1, 2, 4, 1, 2]),
            (&[5, 2, 3, 4, 1, 2, 3, 6, 1, 2, 3], &[6, 1, 2, 3]),
            // Occurrences may overlap.
            (&[7, 7], &[]),
            (&[7, 7, 7], &[7]),
            (&[7, 7, 7, 7], &[7]),
        ] {
            assert_eq!(continuation(known), expected, "{known:?}");
        }
    }

    #[test]
    fn expects_drafts_beyond_the_token_in_progress() {
        assert!(!PromptLookup.expects(&[7, 7, 7]));
        assert!(PromptLookup.expects(&[1, 2, 3, 1, 2]));
        assert!(!PromptLookup.expects(&[1, 2, 3, 4, 5]));
    }
}
