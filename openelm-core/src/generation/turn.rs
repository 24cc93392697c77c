//! A turn of one or more sequences: one pass through the network for all of them.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::sequence::{Pass, Sequence};
use crate::{
    error::{Error, ErrorKind, Result},
    mlx::{evaluation, recovery::recovering},
    model::Model,
};

/// Makes a turn of all `sequences`, which then have an event, or have ended. An error of one
/// sequence ends it alone; a failure of the device ends all.
pub(super) fn turn(model: &Model, sequences: &mut [&mut Sequence]) {
    if let Err(error) = recovering(|| pass_and_read(model, sequences)) {
        let text = error.to_string();
        let mut error = Some(error);
        for sequence in sequences.iter_mut().filter(|sequence| !sequence.is_done()) {
            let copy = || Exception::custom(text.clone()).into();
            sequence.fail(error.take().unwrap_or_else(copy));
        }
    }
}

fn pass_and_read(model: &Model, sequences: &mut [&mut Sequence]) -> Result<()> {
    let decoding: Vec<bool> = sequences.iter().map(|s| s.is_decoding()).collect();
    let mut passing = Vec::with_capacity(sequences.len());
    for (index, sequence) in sequences.iter_mut().enumerate() {
        match sequence.next_pass() {
            Ok(Some(pass)) => passing.push((index, pass)),
            Ok(None) => {}
            Err(error) => end(sequence, error)?,
        }
    }
    if !passing.is_empty() {
        pass(model, sequences, &passing)?;
        evaluation::start(
            passing
                .iter()
                .flat_map(|(index, _)| sequences[*index].started()),
        )?;
    }
    for (sequence, decoding) in sequences.iter_mut().zip(decoding) {
        let read = if decoding {
            sequence.read(model)
        } else {
            sequence.wait_for_chunk()
        };
        if let Err(error) = read {
            end(sequence, error)?;
        }
    }
    Ok(())
}

/// One pass through the network for the tokens of all sequences in `passing`.
fn pass(model: &Model, sequences: &mut [&mut Sequence], passing: &[(usize, Pass)]) -> Result<()> {
    let mut caches: Vec<_> = Vec::with_capacity(passing.len());
    let mut rest = passing.iter().map(|(index, _)| *index).peekable();
    for (index, sequence) in sequences.iter_mut().enumerate() {
        if rest.next_if_eq(&index).is_some() {
            caches.push(sequence.kv_cache());
        }
    }
    let hidden = match passing {
        [(_, pass)] => model.hidden_of_sequences(&pass.tokens, &[pass.length()], &mut caches)?,
        passing => {
            let tokens: Vec<_> = passing.iter().map(|(_, pass)| &pass.tokens).collect();
            let lengths: Vec<_> = passing.iter().map(|(_, pass)| pass.length()).collect();
            let tokens = concatenate(&tokens, 1)?;
            model.hidden_of_sequences(&tokens, &lengths, &mut caches)?
        }
    };
    let rows = last_rows(&hidden, passing)?;
    let logits = rows.map(|rows| model.logits(&rows)).transpose()?;
    let mut row = 0;
    for (index, pass) in passing {
        let sequence = &mut sequences[*index];
        let of_sequence = match &logits {
            Some(logits) if pass.logits => {
                let pieces = sequence.pieces() as i32;
                row += 1;
                let row = logits.try_index((row - 1, ..pieces))?;
                Some(row.as_dtype(Dtype::Float32)?)
            }
            _ => None,
        };
        if let Err(error) = sequence.passed(of_sequence.as_ref()) {
            end(sequence, error)?;
        }
    }
    Ok(())
}

/// The last hidden state of each pass that needs logits, `[R, D]`, of `hidden` `[1, L, D]`; `None`
/// if no pass does.
fn last_rows(hidden: &Array, passing: &[(usize, Pass)]) -> Result<Option<Array>> {
    let mut ends = Vec::with_capacity(passing.len());
    let mut end = 0;
    for (_, pass) in passing {
        end += pass.length() as i32;
        if pass.logits {
            ends.push(end - 1);
        }
    }
    Ok(match (&*ends, passing) {
        ([], _) => None,
        ([_], [_]) => Some(hidden.try_index((.., -1, ..))?),
        // Each sequence has one token.
        (ends, _) if ends.len() as i32 == end => Some(hidden.squeeze_axes(&[0])?),
        (ends, _) => {
            let ends = Array::from_slice(ends, &[ends.len() as i32]);
            Some(hidden.squeeze_axes(&[0])?.take_axis(&ends, 0)?)
        }
    })
}

/// Ends a sequence with its own error; returns a failure of the device, which ends all.
fn end(sequence: &mut Sequence, error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Device {
        return Err(error);
    }
    sequence.fail(error);
    Ok(())
}
