//! Calibration and held-out text as sequences of tokens.

use std::path::PathBuf;

use mlx_rs::Array;

use super::options::QuantizeOptions;
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    evaluate::Documents,
    tokenizer::Tokenizer,
};

/// Tokens of a sequence, if the model's context is not shorter.
const LENGTH: usize = 512;
/// One in this many sequences is held out.
const HELD_OUT: usize = 8;

/// Sequences of the same number of tokens. The documents follow each other, each between BOS and
/// EOS.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    pub(super) calibration: Vec<Vec<u32>>,
    pub(super) held_out: Vec<Vec<u32>>,
}

impl Texts {
    /// Reads the texts of `options` for a model with a context of `context` tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if the text is too short or a sequence too long; the error of the first
    /// file or row that cannot be read; [`Error::Cancelled`].
    pub(super) fn read(
        options: &QuantizeOptions,
        tokenizer: &Tokenizer,
        context: usize,
        cancel: &CancelHandle,
    ) -> Result<Self> {
        let length = options.max_seq_length.unwrap_or(LENGTH.min(context));
        if !(2..=context).contains(&length) {
            let problem = format!("expected 2 to the model's context of {context}, found {length}");
            return Err(Error::option("max_seq_length", problem));
        }
        let read = |files: &[PathBuf], most| {
            sequences(files, &options.text_key, tokenizer, length, most, cancel)
        };
        let too_short = |option, least: usize, tokens: usize| {
            let problem = format!(
                "expected text of at least {} tokens ({least} sequences of {length}), found {tokens}",
                least * length
            );
            Err(Error::option(option, problem))
        };
        if options.valid.is_empty() {
            let most = options.samples.saturating_add(options.valid_samples);
            let (mut calibration, tokens) = read(&options.data, most)?;
            if calibration.len() < 2 {
                return too_short("data", 2, tokens);
            }
            let held_out = (calibration.len() / HELD_OUT).clamp(1, options.valid_samples);
            let held_out = held_out.max(calibration.len().saturating_sub(options.samples));
            let held_out = calibration.split_off(calibration.len() - held_out);
            return Ok(Self {
                calibration,
                held_out,
            });
        }
        let (calibration, tokens) = read(&options.data, options.samples)?;
        if calibration.is_empty() {
            return too_short("data", 1, tokens);
        }
        let (held_out, tokens) = read(&options.valid, options.valid_samples)?;
        if held_out.is_empty() {
            return too_short("valid", 1, tokens);
        }
        Ok(Self {
            calibration,
            held_out,
        })
    }
}

/// The array `[B, L]` of `sequences`.
pub(super) fn token_array(sequences: &[Vec<u32>]) -> Array {
    let length = sequences.first().map_or(0, Vec::len);
    let flat: Vec<u32> = sequences.iter().flatten().copied().collect();
    Array::from_slice(&flat, &[sequences.len() as i32, length as i32])
}

/// At most `most` sequences of `length` tokens, and the number of tokens that were read.
fn sequences(
    files: &[PathBuf],
    key: &str,
    tokenizer: &Tokenizer,
    length: usize,
    most: usize,
    cancel: &CancelHandle,
) -> Result<(Vec<Vec<u32>>, usize)> {
    let literal = tokenizer.literal();
    let (mut tokens, mut total) = (Vec::new(), 0);
    let mut sequences = Vec::new();
    for text in Documents::open(files, key)? {
        cancel.check()?;
        let before = tokens.len();
        tokens.push(literal.bos_id());
        tokens.extend(literal.encode(&text?)?);
        tokens.push(literal.eos_id());
        total += tokens.len() - before;
        let whole = tokens.len() / length * length;
        for sequence in tokens[..whole].chunks_exact(length) {
            sequences.push(sequence.to_vec());
            if sequences.len() == most {
                return Ok((sequences, total));
            }
        }
        tokens.drain(..whole);
    }
    Ok((sequences, total))
}
