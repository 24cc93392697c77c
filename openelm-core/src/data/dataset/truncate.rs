//! Truncation of preference pairs, as in TRL's `DPOTrainer.tokenize_row` (0.8).

use super::example::{Example, PreferencePair};

/// Cuts off a pair that has more than `max_length` tokens with its prompt and the longer answer:
/// first the prompt to its last `max_prompt_length` tokens, then both answers to their first
/// `max_length - max_prompt_length`. True if the pair was cut off.
pub(super) fn pair(pair: &mut PreferencePair, max_length: usize, max_prompt_length: usize) -> bool {
    let sides = [&pair.chosen, &pair.rejected];
    let answers = sides.map(|side| side.tokens.len() - side.first_target);
    let longer = answers.into_iter().max().unwrap_or_default();
    let prompt = pair.chosen.first_target;
    if prompt + longer <= max_length {
        return false;
    }
    let kept = prompt.min(max_prompt_length);
    let is_still_long = kept + longer > max_length;
    let most = if is_still_long {
        max_length.saturating_sub(max_prompt_length)
    } else {
        longer
    };
    for side in [&mut pair.chosen, &mut pair.rejected] {
        cut(side, kept, most);
    }
    true
}

/// Keeps the last `prompt` tokens before the first target and the first `answer` from it on.
fn cut(side: &mut Example, prompt: usize, answer: usize) {
    side.tokens
        .truncate(side.first_target.saturating_add(answer));
    side.tokens
        .drain(..side.first_target.saturating_sub(prompt));
    side.first_target = prompt;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair_of(prompt: u32, chosen: u32, rejected: u32) -> PreferencePair {
        let side = |answer: u32, start: u32| Example {
            tokens: (1..=prompt).chain(start..start + answer).collect(),
            first_target: prompt as usize,
        };
        PreferencePair {
            chosen: side(chosen, 100),
            rejected: side(rejected, 200),
        }
    }

    /// Expected: prompts and answers after TRL's lines, in Python.
    #[test]
    fn cuts_prompts_from_the_left_then_answers() {
        for ((prompt, chosen, rejected), expected) in [
            // Fits.
            ((6, 4, 2), (6, 4, 2)),
            // The prompt alone, of both sides, by the longer answer.
            ((7, 2, 4), (4, 2, 4)),
            // Short prompts are not cut off; the longer answer is, and the shorter one stays.
            ((3, 9, 2), (3, 6, 2)),
            ((12, 8, 7), (4, 6, 6)),
        ] {
            let mut pair = pair_of(prompt, chosen, rejected);
            let was_cut = super::pair(&mut pair, 10, 4);
            assert_eq!(was_cut, (prompt, chosen, rejected) != expected);
            let (kept, chosen, rejected) = expected;
            for (side, answer, start) in
                [(&pair.chosen, chosen, 100), (&pair.rejected, rejected, 200)]
            {
                let expected = (prompt - kept + 1..=prompt).chain(start..start + answer);
                assert_eq!(side.tokens, expected.collect::<Vec<_>>());
                assert_eq!(side.first_target, kept as usize);
            }
        }
    }
}
