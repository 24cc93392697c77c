//! A sequence of the corpus: tokens, and the starts of documents.

/// A sequence of at most `L + 1` tokens: the first `L` are the input, and each predicts its
/// successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, without padding; at least two.
    pub tokens: Vec<u32>,
    /// Positions in `tokens` where a document begins, or continues from an earlier sequence;
    /// ascending, the first is 0. A truncated sequence has only 0.
    pub document_starts: Vec<usize>,
}

/// A sequence as arrays of length `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// The model's input, padded.
    pub inputs: Vec<u32>,
    /// The targets of these positions, padded.
    pub targets: Vec<u32>,
    /// True for positions that count in the loss: not padding, and not the end of a document.
    pub mask: Vec<bool>,
    /// Document index of each position, from 0. A position attends only to earlier positions with
    /// the same index. Padding has its own index.
    pub documents: Vec<u32>,
}

impl Sequence {
    /// Number of tokens that are targets of the loss: all except the first of each document.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.document_starts.len())
    }

    /// The arrays for a model with `length` positions, `L`; `pad` is the padding id, which can be
    /// any id of the vocabulary, because padding is masked.
    pub fn rows(&self, length: usize, pad: u32) -> SequenceRows {
        let inputs = self.tokens.len().saturating_sub(1).min(length);
        let padded = |tokens: &[u32]| {
            let mut row: Vec<u32> = tokens.iter().copied().take(inputs).collect();
            row.resize(length, pad);
            row
        };
        let mut starts = self.document_starts.iter().copied().peekable();
        let (mut mask, mut documents) = (Vec::with_capacity(length), Vec::with_capacity(length));
        let mut document = 0;
        for position in 0..length {
            // A document that begins here ends the previous one.
            while starts.next_if(|&start| start <= position).is_some() {
                document += u32::from(position > 0);
            }
            let begins_next = starts.peek() == Some(&(position + 1));
            mask.push(position < inputs && !begins_next);
            documents.push(document + u32::from(position >= inputs));
        }
        SequenceRows {
            inputs: padded(&self.tokens),
            targets: padded(self.tokens.get(1..).unwrap_or_default()),
            mask,
            documents,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_document_boundaries_and_padding() {
        let sequence = Sequence {
            tokens: vec![1, 5, 2, 1, 6, 7],
            document_starts: vec![0, 3],
        };
        assert_eq!(sequence.targets(), 4);
        let rows = sequence.rows(7, 9);
        assert_eq!(rows.inputs, [1, 5, 2, 1, 6, 9, 9]);
        assert_eq!(rows.targets, [5, 2, 1, 6, 7, 9, 9]);
        let mask = [true, true, false, true, true, false, false];
        assert_eq!(rows.mask, mask);
        assert_eq!(rows.documents, [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(rows.mask.iter().filter(|&&m| m).count(), sequence.targets());
        // If the last token starts a document, it is only a target, and masked.
        let sequence = Sequence {
            tokens: vec![1, 2, 1],
            document_starts: vec![0, 2],
        };
        assert_eq!(sequence.rows(2, 0).mask, [true, false]);
    }
}
