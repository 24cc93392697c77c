//! Splits a long example into several short ones.

use super::example::Example;

/// Windows of at most `max_length` tokens (at least 2) that overlap by one token: the last token of
/// a window is a target there and the first input of the next. Windows without a target are
/// dropped.
pub(crate) fn split(example: &Example, max_length: usize) -> Vec<Example> {
    let stride = max_length.saturating_sub(1).max(1);
    let predicting = example.tokens.len().saturating_sub(1);
    (0..predicting)
        .step_by(stride)
        .filter_map(|start| {
            let rest = example.tokens.get(start..)?;
            let tokens = rest.get(..rest.len().min(stride + 1))?.to_vec();
            let first_target = example.first_target.saturating_sub(start).max(1);
            (first_target < tokens.len()).then_some(Example {
                tokens,
                first_target,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: u32, first_target: usize, max_length: usize) -> Vec<(Vec<u32>, usize)> {
        let example = Example {
            tokens: (0..length).collect(),
            first_target,
        };
        split(&example, max_length)
            .into_iter()
            .map(|window| (window.tokens, window.first_target))
            .collect()
    }

    #[test]
    fn windows_overlap_by_one_token() {
        assert_eq!(
            of(8, 1, 4),
            [
                (vec![0, 1, 2, 3], 1),
                (vec![3, 4, 5, 6], 1),
                (vec![6, 7], 1)
            ]
        );
        // No window without a prediction remains.
        assert_eq!(of(7, 1, 4).len(), 2);
        assert_eq!(of(3, 1, 2), [(vec![0, 1], 1), (vec![1, 2], 1)]);
    }

    #[test]
    fn long_prompt_is_masked_in_all_windows() {
        assert_eq!(of(8, 5, 4), [(vec![3, 4, 5, 6], 2), (vec![6, 7], 1)]);
        assert_eq!(of(8, 4, 4), [(vec![3, 4, 5, 6], 1), (vec![6, 7], 1)]);
        assert_eq!(of(8, 7, 4), [(vec![6, 7], 1)]);
    }

    #[test]
    fn every_target_occurs_once() {
        for length in 2..40 {
            for first_target in 1..length as usize {
                for max_length in 2..12 {
                    let seen: Vec<u32> = of(length, first_target, max_length)
                        .into_iter()
                        .flat_map(|(tokens, first)| tokens[first..].to_vec())
                        .collect();
                    let expected: Vec<u32> = (first_target as u32..length).collect();
                    assert_eq!(seen, expected, "{length} {first_target} {max_length}");
                }
            }
        }
    }
}
