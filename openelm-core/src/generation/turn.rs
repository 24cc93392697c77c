//! A turn of one or more sequences: one pass through the network for all of them.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::{phase::Pass, sequence::Sequence};
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
    let mut passing = Vec::with_capacity(sequences.len());
    for (index, sequence) in sequences.iter_mut().enumerate() {
        match sequence.next_pass(model) {
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
    for sequence in sequences.iter_mut() {
        if let Err(error) = sequence.read(model) {
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
    let mut start = 0;
    for (index, pass) in passing {
        let sequence = &mut sequences[*index];
        let (pieces, end_of_rows) = (sequence.pieces() as i32, start + pass.logits as i32);
        let mut of_sequence = Vec::with_capacity(pass.logits);
        for row in start..end_of_rows {
            if let Some(logits) = &logits {
                let row = logits.try_index((row, ..pieces))?;
                of_sequence.push(row.as_dtype(Dtype::Float32)?);
            }
        }
        start = end_of_rows;
        if let Err(error) = sequence.passed(model, &of_sequence) {
            end(sequence, error)?;
        }
    }
    Ok(())
}

/// The last hidden states of each pass, as many as it needs logits, `[R, D]`, of `hidden`
/// `[1, L, D]`; `None` if no pass needs any.
fn last_rows(hidden: &Array, passing: &[(usize, Pass)]) -> Result<Option<Array>> {
    let mut rows: Vec<i32> = Vec::with_capacity(passing.len());
    let mut end = 0;
    for (_, pass) in passing {
        end += pass.length() as i32;
        rows.extend(end - pass.logits as i32..end);
    }
    Ok(match (&*rows, passing) {
        ([], _) => None,
        ([_], [_]) => Some(hidden.try_index((.., -1, ..))?),
        (rows, _) if rows.len() as i32 == end => Some(hidden.squeeze_axes(&[0])?),
        (rows, _) => {
            let rows = Array::from_slice(rows, &[rows.len() as i32]);
            Some(hidden.squeeze_axes(&[0])?.take_axis(&rows, 0)?)
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
