//! Batches of rows as arrays.

use crate::data::dataset::{Example, PreferencePair};

/// The padding of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// The length of a batch is a multiple of this, which limits the number of different shapes; 0
    /// is the same as 1. Default 32.
    pub pad_to: usize,
    /// Limit of the padded length, in tokens; rows are never cut. Default 2048.
    pub max_length: usize,
}

impl Default for Padding {
    fn default() -> Self {
        Self {
            pad_to: 32,
            max_length: 2048,
        }
    }
}

impl Padding {
    /// The length of a batch whose longest row predicts `longest` tokens.
    fn length(self, longest: usize) -> usize {
        let padded = padded_length(longest, self.pad_to);
        padded.min(self.max_length).max(longest)
    }
}

/// Rows of examples, padded with id 0 to one length. Position `i` of a row is the input token `i`
/// and predicts token `i + 1`.
///
/// The lists are arrays of shape `[B, L]`, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Input ids, `[B, L]`.
    pub inputs: Vec<u32>,
    /// Target ids, `[B, L]`.
    pub targets: Vec<u32>,
    /// True where a target counts in the loss, `[B, L]`.
    pub mask: Vec<bool>,
    /// Index of each position's document within the row, `[B, L]`: positions attend only to their
    /// own document. Empty if every row is one document.
    pub documents: Vec<u32>,
    /// Number of rows, `B`.
    pub batch: usize,
    /// Length of a row, `L`.
    pub length: usize,
}

impl Batch {
    /// The batch of `examples`; only real tokens from each example's `first_target` count.
    pub fn new(examples: &[&Example], padding: Padding) -> Self {
        let longest = examples
            .iter()
            .map(|example| example.tokens.len().saturating_sub(1))
            .max()
            .unwrap_or(0);
        let mut batch = Self::with_length(padding.length(longest), examples.len());
        for example in examples {
            let first = example.first_target.saturating_sub(1);
            let end = example.tokens.len().saturating_sub(1);
            batch.push(&example.tokens, first..end);
        }
        batch
    }

    /// The batch of preference pairs, `[2 B, L]`: all chosen rows, then all rejected ones in the
    /// same order.
    pub fn pairs(pairs: &[&PreferencePair], padding: Padding) -> Self {
        let chosen = pairs.iter().map(|pair| &pair.chosen);
        let rejected = pairs.iter().map(|pair| &pair.rejected);
        Self::new(&chosen.chain(rejected).collect::<Vec<_>>(), padding)
    }

    /// The batch as in mlx-lm: rows are cut to `max_length` tokens, the length is a multiple of 32
    /// unless that exceeds `max_length - 1`, and in a padded row the first padding token counts as
    /// a target.
    pub fn mlx_lm(examples: &[&Example], max_length: usize) -> Self {
        let cut = |example: &Example| example.tokens.len().min(max_length);
        let longest = examples.iter().map(|example| example.tokens.len()).max();
        let padded = padded_length(longest.unwrap_or(0), 32);
        let length = padded.min(max_length.saturating_sub(1));
        let mut batch = Self::with_length(length, examples.len());
        for example in examples {
            let tokens = example.tokens.iter().take(cut(example)).copied();
            let first = example.first_target.saturating_sub(1);
            batch.push(&tokens.collect::<Vec<_>>(), first..cut(example));
        }
        batch
    }

    /// The batch of sequences of at most `length + 1` tokens, padded to `length`, for pre-training.
    /// Every token except the first of a document is a target; `starts` are the positions where
    /// documents begin; tokens before the first start continue an earlier document.
    pub fn packed(sequences: &[(&[u32], &[usize])], length: usize) -> Self {
        let mut batch = Self::with_length(length, sequences.len());
        let within = |start: &usize| (1..length).contains(start);
        let mixed = sequences
            .iter()
            .any(|(_, starts)| starts.iter().any(within));
        for (tokens, starts) in sequences {
            let first = batch.mask.len();
            batch.push(tokens, 0..tokens.len().saturating_sub(1));
            let row = &mut batch.mask[first..];
            for &start in *starts {
                // The target of this position is in the next document.
                if let Some(counts) = start.checked_sub(1).and_then(|at| row.get_mut(at)) {
                    *counts = false;
                }
            }
            if mixed {
                let mut document = 0;
                for position in 0..length {
                    document += u32::from(position > 0 && starts.contains(&position));
                    batch.documents.push(document);
                }
            }
        }
        batch
    }

    /// Number of targets that count in the loss.
    pub fn target_count(&self) -> usize {
        self.mask.iter().filter(|&&counts| counts).count()
    }

    fn with_length(length: usize, capacity: usize) -> Self {
        let size = length.saturating_mul(capacity);
        Self {
            inputs: Vec::with_capacity(size),
            targets: Vec::with_capacity(size),
            mask: Vec::with_capacity(size),
            documents: Vec::new(),
            batch: 0,
            length,
        }
    }

    /// Adds a row; `counted` is the range of positions whose targets count.
    fn push(&mut self, tokens: &[u32], counted: std::ops::Range<usize>) {
        let padded = || tokens.iter().copied().chain(std::iter::repeat(0));
        self.inputs.extend(padded().take(self.length));
        self.targets.extend(padded().skip(1).take(self.length));
        let mask = (0..self.length).map(|position| counted.contains(&position));
        self.mask.extend(mask);
        self.batch += 1;
    }
}

/// `length` rounded up to a multiple of `pad_to`.
pub(super) fn padded_length(length: usize, pad_to: usize) -> usize {
    length
        .checked_next_multiple_of(pad_to.max(1))
        .unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(tokens: &[u32], first_target: usize) -> Example {
        Example {
            tokens: tokens.to_vec(),
            first_target,
        }
    }

    const SMALL: Padding = Padding {
        pad_to: 4,
        max_length: 100,
    };

    #[test]
    fn batch_pads_rows_and_counts_real_targets() {
        let (short, long) = (example(&[1, 7, 2], 1), example(&[1, 5, 6, 7, 8, 2], 3));
        let batch = Batch::new(&[&short, &long], SMALL);
        assert_eq!((batch.batch, batch.length), (2, 8));
        assert_eq!(
            batch.inputs,
            [1, 7, 2, 0, 0, 0, 0, 0, 1, 5, 6, 7, 8, 2, 0, 0]
        );
        assert_eq!(
            batch.targets,
            [7, 2, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8, 2, 0, 0, 0]
        );
        let mask: Vec<u8> = batch.mask.iter().map(|&counts| counts.into()).collect();
        assert_eq!(mask, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]);
        assert_eq!(batch.target_count(), 5);
        assert_eq!(batch.target_count(), short.targets() + long.targets());
    }

    #[test]
    fn padding_is_limited_and_truncates_nothing() {
        let length = |tokens: u32, padding| {
            let tokens: Vec<_> = (0..tokens).collect();
            Batch::new(&[&example(&tokens, 1)], padding).length
        };
        assert_eq!(length(5, SMALL), 4);
        assert_eq!(length(6, SMALL), 8);
        let narrow = Padding {
            pad_to: 4,
            max_length: 6,
        };
        assert_eq!(length(6, narrow), 6);
        assert_eq!(length(12, narrow), 11);
        let unpadded = Padding {
            pad_to: 0,
            max_length: 6,
        };
        assert_eq!(length(6, unpadded), 5);
        assert_eq!(length(2_048, Padding::default()), 2_048);
        assert_eq!(length(34, Padding::default()), 64);
        assert_eq!(Batch::new(&[], SMALL).length, 0);
    }

    #[test]
    fn pairs_are_stacked() {
        let pair = |number: u32| PreferencePair {
            chosen: example(&[1, 9, number, 2], 2),
            rejected: example(&[1, 9, number + 1, number + 2, 2], 2),
        };
        let batch = Batch::pairs(&[&pair(10), &pair(20)], SMALL);
        assert_eq!((batch.batch, batch.length), (4, 4));
        assert_eq!(
            batch.inputs,
            [1, 9, 10, 2, 1, 9, 20, 2, 1, 9, 11, 12, 1, 9, 21, 22]
        );
        assert_eq!(batch.mask[..4], [false, true, true, false]);
        assert_eq!(batch.target_count(), 2 + 2 + 3 + 3);
    }

    #[test]
    fn packed_rows_separate_documents() {
        // Two documents and the start of a third; a second row with one shorter document.
        let first: (&[u32], &[usize]) = (&[1, 5, 2, 1, 6, 7, 2, 1, 8], &[0, 3, 7]);
        let second: (&[u32], &[usize]) = (&[1, 9, 2], &[0]);
        let batch = Batch::packed(&[first, second], 8);
        assert_eq!((batch.batch, batch.length), (2, 8));
        assert_eq!(batch.inputs[..8], [1, 5, 2, 1, 6, 7, 2, 1]);
        assert_eq!(batch.targets[..8], [5, 2, 1, 6, 7, 2, 1, 8]);
        let mask: Vec<u8> = batch.mask.iter().map(|&counts| counts.into()).collect();
        assert_eq!(mask, [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(batch.documents[..8], [0, 0, 0, 1, 1, 1, 1, 2]);
        assert_eq!(batch.documents[8..], [0; 8]);
        // A single document needs only the causal mask.
        assert!(Batch::packed(&[second], 8).documents.is_empty());
        // The end of a document that started in an earlier row.
        let rest: (&[u32], &[usize]) = (&[5, 2, 1, 6], &[2]);
        let batch = Batch::packed(&[rest], 3);
        assert_eq!(batch.mask, [true, false, true]);
        assert_eq!(batch.documents, [0, 0, 1]);
    }

    /// Arrays of `mlx_lm.tuner.trainer` 0.32.2 for the same rows.
    #[test]
    fn compat_batches_match_mlx_lm() {
        let (short, long) = (
            example(&[1, 7, 8, 2], 1),
            example(&[1, 5, 6, 7, 8, 9, 10, 2], 3),
        );
        let batch = Batch::mlx_lm(&[&short, &long], 2_048);
        assert_eq!((batch.batch, batch.length), (2, 32));
        let marks = |row: usize, batch: &Batch| -> Vec<usize> {
            let mask = batch.mask.chunks(batch.length).nth(row).unwrap();
            (0..mask.len()).filter(|&at| mask[at]).collect()
        };
        assert_eq!(batch.targets[..5], [7, 8, 2, 0, 0]);
        assert_eq!(marks(0, &batch), [0, 1, 2, 3]);
        assert_eq!(marks(1, &batch), [2, 3, 4, 5, 6, 7]);

        let cut = Batch::mlx_lm(&[&short, &long], 6);
        assert_eq!(cut.length, 5);
        assert_eq!(cut.inputs, [1, 7, 8, 2, 0, 1, 5, 6, 7, 8]);
        assert_eq!(cut.targets, [7, 8, 2, 0, 0, 5, 6, 7, 8, 9]);
        assert_eq!(marks(0, &cut), [0, 1, 2, 3]);
        assert_eq!(marks(1, &cut), [2, 3, 4]);

        let of = |count: u32| example(&(1..=count).collect::<Vec<_>>(), 1);
        let cut = Batch::mlx_lm(&[&of(40), &of(2)], 34);
        assert_eq!((cut.length, cut.target_count()), (33, 33 + 2));
        assert_eq!(cut.targets[32], 34);
        let full = Batch::mlx_lm(&[&of(32)], 2_048);
        assert_eq!((full.length, full.target_count()), (32, 32));
        assert_eq!(full.targets[30..], [32, 0]);
    }
}
