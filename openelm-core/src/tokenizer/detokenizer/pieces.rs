//! The table of a tokenizer's pieces, indexed by id.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Largest supported vocabulary: limits the table that a corrupt id can allocate.
pub(crate) const MAX_PIECES: usize = 1 << 20;

/// The pieces, indexed by id.
#[derive(Debug)]
pub(crate) struct Pieces {
    path: PathBuf,
    pieces: Vec<Option<Piece>>,
    /// True if the leading space of a text is dropped.
    pub(super) drops_first_space: bool,
}

/// One piece.
#[derive(Debug)]
pub(super) struct Piece {
    /// Name in the vocabulary.
    pub(super) name: Box<str>,
    pub(super) kind: Kind,
}

/// The output of a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::tokenizer) enum Kind {
    Text,
    Byte(u8),
    Special,
}

impl Pieces {
    /// The table of `vocab`, read from `path`.
    pub(crate) fn new(
        path: PathBuf,
        vocab: impl IntoIterator<Item = (String, u32)>,
        drops_first_space: bool,
    ) -> Result<Self, String> {
        let mut table = Self {
            path,
            pieces: Vec::new(),
            drops_first_space,
        };
        let vocab = vocab.into_iter();
        table.pieces.reserve(vocab.size_hint().0.min(MAX_PIECES));
        for (name, id) in vocab {
            table.insert(id, &name)?;
        }
        Ok(table)
    }

    /// Adds a piece.
    pub(crate) fn insert(&mut self, id: u32, name: &str) -> Result<(), String> {
        let kind = byte_of(name).map_or(Kind::Text, Kind::Byte);
        self.insert_kind(id, name, kind)
    }

    /// Adds or renames the token `id` of the added tokens.
    pub(crate) fn add(&mut self, id: u32, name: &str, special: bool) -> Result<(), String> {
        let kind = if special { Kind::Special } else { Kind::Text };
        if let Some(Some(piece)) = self.pieces.get_mut(id as usize) {
            *piece = Piece {
                name: name.into(),
                kind,
            };
            return Ok(());
        }
        self.insert_kind(id, name, kind)
    }

    fn insert_kind(&mut self, id: u32, name: &str, kind: Kind) -> Result<(), String> {
        let index = id as usize;
        if index >= MAX_PIECES {
            return Err(format!(
                "`{name}` has the id {id}; at most {MAX_PIECES} are supported"
            ));
        }
        if index >= self.pieces.len() {
            self.pieces.resize_with(index + 1, || None);
        }
        match self.pieces.get_mut(index) {
            Some(Some(other)) => Err(format!(
                "`{}` and `{name}` have the same id {id}",
                other.name
            )),
            Some(slot) => {
                *slot = Some(Piece {
                    name: name.into(),
                    kind,
                });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Highest id + 1.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The name of the piece `id` in the vocabulary.
    pub(crate) fn name(&self, id: u32) -> Option<&str> {
        Some(&self.pieces.get(id as usize)?.as_ref()?.name)
    }

    /// The bytes of the piece `id` in the middle of a text, by SentencePiece's rules.
    pub(crate) fn bytes(&self, id: u32) -> Vec<u8> {
        match self.get(id) {
            Ok(piece) => match piece.kind {
                Kind::Text => piece.name.replace('▁', " ").into_bytes(),
                Kind::Byte(byte) => vec![byte],
                Kind::Special => Vec::new(),
            },
            Err(_) => Vec::new(),
        }
    }

    /// The byte of a piece such as `<0x0A>`.
    pub(crate) fn byte(&self, id: u32) -> Option<u8> {
        match self.get(id).ok()?.kind {
            Kind::Byte(byte) => Some(byte),
            Kind::Text | Kind::Special => None,
        }
    }

    /// The name and the output of the piece `id`.
    pub(in crate::tokenizer) fn piece(&self, id: u32) -> Option<(&str, Kind)> {
        let piece = self.pieces.get(id as usize)?.as_ref()?;
        Some((&piece.name, piece.kind))
    }

    /// True if `id` is a token without text.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.get(id).is_ok_and(|piece| piece.kind == Kind::Special)
    }

    /// The file that the pieces were read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The piece `id`, or an error that names the file.
    pub(super) fn get(&self, id: u32) -> Result<&Piece> {
        let piece = self.pieces.get(id as usize).and_then(Option::as_ref);
        piece.ok_or_else(|| {
            Error::tokenizer(
                &self.path,
                format!(
                    "no piece has the id {id}; there are {} ids",
                    self.pieces.len()
                ),
            )
        })
    }
}

/// The byte of a piece such as `<0x0A>`.
fn byte_of(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_bounded() {
        let vocab = |id| [("a".to_owned(), 3), ("b".to_owned(), id)];
        let new = |id| Pieces::new("tiny".into(), vocab(id), true);
        assert!(new(3).unwrap_err().contains("have the same id 3"));
        assert!(
            new(u32::MAX)
                .unwrap_err()
                .contains("`b` has the id 4294967295")
        );
        let pieces = new(5).unwrap();
        assert_eq!(
            (pieces.len(), pieces.name(4), pieces.name(5)),
            (6, None, Some("b"))
        );
    }

    #[test]
    fn byte_pieces_have_two_hexadecimal_digits() {
        let bytes = [
            "<0x0A>", "<0xff>", "<0x+1>", "<0x1>", "<0x123>", "0x12", "<0x€>",
        ];
        assert_eq!(
            bytes.map(byte_of),
            [Some(10), Some(255), None, None, None, None, None]
        );
    }
}
