//! The model's input: tokens, and the places where documents begin.

/// A sequence of at most `L + 1` tokens: the model reads the first `L` and predicts each one's
/// successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, without padding; at least two.
    pub tokens: Vec<u32>,
    /// Positions in `tokens` where a document begins, or goes on from an earlier sequence;
    /// rising, the first is 0. Of a truncated sequence, 0 alone.
    pub document_starts: Vec<usize>,
}

/// A sequence as rows of exactly `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// The model's input, padded.
    pub inputs: Vec<u32>,
    /// The targets of these positions, padded.
    pub targets: Vec<u32>,
    /// The positions that count in the loss: not padding, and not where the next document begins.
    pub mask: Vec<bool>,
    /// Number of the document, from 0. A position may attend to those before it with the same
    /// number, and to no others. Padding has a number of its own.
    pub documents: Vec<u32>,
}

impl Sequence {
    /// Number of tokens that are targets of the loss: all but the first of each document.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.document_starts.len())
    }

    /// The rows that a model of `length` positions reads, `L`; `pad` is the id for what is
    /// missing, which any id of the vocabulary can be: it is masked.
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
            // A document that begins here ends the one before.
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
        // A document whose first token stands last is only a target, and masked.
        let sequence = Sequence {
            tokens: vec![1, 2, 1],
            document_starts: vec![0, 2],
        };
        assert_eq!(sequence.rows(2, 0).mask, [true, false]);
    }
}
