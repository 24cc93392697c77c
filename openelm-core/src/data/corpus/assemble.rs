//! Assembly of token fragments to sequences.

use super::{
    options::{Assembly, CorpusOptions},
    sequence::Sequence,
    state::{Made, Mark, StreamState},
};

/// A sequence and the stream's state after it.
pub(crate) struct Assembled {
    pub(crate) sequence: Sequence,
    pub(crate) state: StreamState,
}

pub(crate) struct Assembler {
    assembly: Assembly,
    /// Sequence length in tokens, `L + 1`.
    width: usize,
    min_tokens: usize,
    /// State between the last added fragment and the next, including the counts.
    state: StreamState,
    tokens: Vec<u32>,
    starts: Vec<usize>,
}

impl Assembler {
    pub(crate) fn new(options: &CorpusOptions, state: StreamState) -> Self {
        Self {
            assembly: options.assembly,
            width: options.sequence_length + 1,
            min_tokens: options.min_tokens,
            state,
            tokens: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Adds a fragment, whose tokens are BOS, text, EOS; `after` is the position after it.
    pub(crate) fn add(&mut self, fragment: &[u32], after: Mark, made: &mut Vec<Assembled>) {
        self.state.read = after.read.clone();
        let begun = std::mem::take(&mut self.state.offset);
        if begun == 0 {
            if fragment.len() < self.min_tokens {
                self.state.made.dropped_by_tokens += 1;
                self.state.mark = after;
                return;
            }
            self.state.made.kept += 1;
            self.state.made.tokens += fragment.len() as u64;
        }
        match self.assembly {
            Assembly::Truncate => {
                self.tokens.extend(fragment.iter().take(self.width));
                self.starts.push(0);
                let rest = fragment.len().saturating_sub(self.width);
                self.state.made.truncated_tokens += rest as u64;
                self.state.mark = after;
                self.finish(made);
            }
            Assembly::Pack => self.pack(fragment, begun, after, made),
        }
    }

    fn pack(&mut self, fragment: &[u32], begun: usize, after: Mark, made: &mut Vec<Assembled>) {
        let mut rest = fragment.get(begun..).unwrap_or_default();
        while !rest.is_empty() {
            let room = self.width.saturating_sub(self.tokens.len()).min(rest.len());
            let (fits, more) = rest.split_at(room);
            self.starts.push(self.tokens.len());
            self.tokens.extend(fits);
            if more.is_empty() {
                break;
            }
            // The last token is in both sequences: here as a target, in the next as an input.
            rest = rest.get(room.saturating_sub(1)..).unwrap_or_default();
            self.state.offset = fragment.len() - rest.len();
            self.finish(made);
        }
        self.state.offset = 0;
        self.state.mark = after;
        // A single further token would have no target.
        if self.tokens.len() + 1 >= self.width {
            self.finish(made);
        }
    }

    /// Returns the incomplete sequence, at the end of the stream.
    pub(crate) fn flush(&mut self, made: &mut Vec<Assembled>) {
        if self.tokens.len() > 1 {
            self.finish(made);
        }
    }

    /// Copies the counts of reading, including fragments dropped after the last added one.
    pub(crate) fn read(&mut self, mark: &Mark) {
        self.state.read = mark.read.clone();
    }

    /// The position after the whole stream.
    pub(crate) fn end(&mut self, end: Mark) {
        self.state.read = end.read.clone();
        self.state.mark = end;
    }

    pub(crate) fn made(&mut self) -> &mut Made {
        &mut self.state.made
    }

    pub(crate) fn state(&self) -> &StreamState {
        &self.state
    }

    fn finish(&mut self, made: &mut Vec<Assembled>) {
        let sequence = Sequence {
            tokens: std::mem::take(&mut self.tokens),
            document_starts: std::mem::take(&mut self.starts),
        };
        let counts = &mut self.state.made;
        counts.sequences += 1;
        counts.targets += sequence.targets() as u64;
        counts.pads += self.width.saturating_sub(sequence.tokens.len()) as u64;
        made.push(Assembled {
            sequence,
            state: self.state.clone(),
        });
    }
}
