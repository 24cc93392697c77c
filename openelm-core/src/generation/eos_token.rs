//! Tokens that end a text.

use std::convert::Infallible;
use std::str::FromStr;

use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// A token that ends a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EosToken {
    /// By its id.
    Id(u32),
    /// By its piece in the vocabulary's spelling, such as `<0x0A>`.
    Piece(String),
}

impl FromStr for EosToken {
    type Err = Infallible;

    /// A decimal number that fits 32 bits is an id; other text is a piece.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(match text.parse() {
            Ok(id) if is_number => Self::Id(id),
            _ => Self::Piece(text.to_owned()),
        })
    }
}

/// The ids of `eos` and `extra`, which must be below `vocab_size`.
pub(super) fn end_tokens(
    eos: u32,
    extra: &[EosToken],
    tokenizer: Option<&Tokenizer>,
    vocab_size: usize,
) -> Result<Vec<u32>> {
    let mut ids = vec![eos];
    for token in extra {
        let id = match token {
            EosToken::Id(id) if (*id as usize) < vocab_size => Ok(*id),
            EosToken::Id(id) => Err(format!("expected ids below {vocab_size}, found {id}")),
            EosToken::Piece(piece) => tokenizer
                .and_then(|tokenizer| tokenizer.piece_id(piece))
                .ok_or_else(|| format!("expected a token of the vocabulary, found {piece:?}")),
        };
        ids.push(id.map_err(|problem| Error::option("extra_eos_tokens", problem))?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ids() {
        let piece = |text: &str| EosToken::Piece(text.to_owned());
        for (text, expected) in [
            ("13", EosToken::Id(13)),
            ("+13", piece("+13")),
            ("-1", piece("-1")),
            ("4294967296", piece("4294967296")),
            ("", piece("")),
            ("<0x0A>", piece("<0x0A>")),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
    }

    #[test]
    fn unknown_tokens_are_refused() {
        let problem = |token: EosToken| {
            let error = end_tokens(2, &[token], None, 8).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            problem(EosToken::Id(8)),
            "extra_eos_tokens: expected ids below 8, found 8"
        );
        assert_eq!(
            problem(EosToken::Piece("x".into())),
            "extra_eos_tokens: expected a token of the vocabulary, found \"x\""
        );
        assert_eq!(end_tokens(2, &[EosToken::Id(7)], None, 8).unwrap(), [2, 7]);
    }
}
