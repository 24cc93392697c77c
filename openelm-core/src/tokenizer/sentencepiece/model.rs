//! A SentencePiece model file.

use tokenizers::models::bpe::{Merges, Vocab};

use super::{
    protobuf::Fields,
    settings::{Normalizer, Trainer},
};
use crate::tokenizer::{TokenizerSpec, detokenizer::MAX_PIECES};

/// Longest piece in bytes; LLaMA's longest has 48.
const MAX_PIECE_BYTES: usize = 512;
/// LLaMA has 61,249 merges; a hostile file of 64 MiB could have a thousand times as many.
const MAX_MERGES: usize = 1 << 21;

/// Reads the bytes of a `tokenizer.model`.
pub(crate) fn read(bytes: &[u8]) -> Result<TokenizerSpec, String> {
    let model = Model::parse(bytes)?;
    let trainer = model
        .trainer
        .as_ref()
        .ok_or("the trainer's settings are missing")?;
    trainer.check()?;
    let normalizer = model
        .normalizer
        .as_ref()
        .ok_or("the normalizer's settings are missing")?;
    normalizer.check()?;
    let unk = check_pieces(&model.pieces)?;
    let vocab = vocabulary(&model.pieces)?;
    let merges = merges(&model.pieces, &vocab)?;
    Ok(TokenizerSpec {
        vocab,
        merges,
        unk: Some(unk),
        fuse_unk: true,
        ignore_merges: false,
        bos: trainer.bos.to_owned(),
        eos: trainer.eos.to_owned(),
        controls: model.of_kind(CONTROL),
        added: Vec::new(),
        normalizer: Some(normalizer.build()?),
        pre_tokenizer: None,
        drops_first_space: normalizer.drops_first_space(),
    })
}

const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: u64,
}

struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    trainer: Option<Trainer<'a>>,
    normalizer: Option<Normalizer<'a>>,
}

impl<'a> Model<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            trainer: None,
            normalizer: None,
        };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 if model.pieces.len() == MAX_PIECES => {
                    return Err(format!("more than {MAX_PIECES} pieces are not supported"));
                }
                1 => model.pieces.push(Piece::parse(value.bytes()?)?),
                2 => model.trainer = Some(Trainer::parse(value.bytes()?)?),
                3 => model.normalizer = Some(Normalizer::parse(value.bytes()?)?),
                5 if Normalizer::parse(value.bytes()?)?.has_charsmap => {
                    return Err("a denormalizer is not supported".to_owned());
                }
                _ => {}
            }
        }
        Ok(model)
    }

    fn of_kind(&self, kind: u64) -> Vec<String> {
        let pieces = self.pieces.iter().filter(|piece| piece.kind == kind);
        pieces.map(|piece| piece.text.to_owned()).collect()
    }
}

impl<'a> Piece<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut piece = Self {
            text: "",
            score: 0.0,
            kind: NORMAL,
        };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => piece.text = value.text()?,
                2 => piece.score = value.float()?,
                3 => piece.kind = value.varint()?,
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// Refuses pieces that no LLaMA tokenizer has; returns the text of the unknown piece.
fn check_pieces(pieces: &[Piece<'_>]) -> Result<String, String> {
    let mut unknown = None;
    for (id, Piece { text, score, kind }) in pieces.iter().enumerate() {
        if text.is_empty() || text.len() > MAX_PIECE_BYTES {
            return Err(format!(
                "piece {id} has {} bytes; expected 1 to {MAX_PIECE_BYTES}",
                text.len()
            ));
        }
        if !score.is_finite() {
            return Err(format!("piece {id} `{text}` has the score {score}"));
        }
        match *kind {
            NORMAL | CONTROL | BYTE => {}
            UNKNOWN if unknown.is_none() => unknown = Some((*text).to_owned()),
            UNKNOWN => return Err(format!("piece {id} `{text}` is a second unknown piece")),
            USER_DEFINED => return Err(refused(id, text, "user-defined")),
            UNUSED => return Err(refused(id, text, "unused")),
            _ => return Err(refused(id, text, "of an unknown kind")),
        }
    }
    unknown.ok_or_else(|| "no piece is the unknown piece".to_owned())
}

fn refused(id: usize, text: &str, kind: &str) -> String {
    format!("piece {id} `{text}` is {kind}, which is not supported")
}

fn vocabulary(pieces: &[Piece<'_>]) -> Result<Vocab, String> {
    let mut vocab = Vocab::with_capacity(pieces.len());
    for (id, piece) in (0..).zip(pieces) {
        if let Some(other) = vocab.insert(piece.text.to_owned(), id) {
            return Err(format!("pieces {other} and {id} are both `{}`", piece.text));
        }
    }
    Ok(vocab)
}

fn merges(pieces: &[Piece<'_>], vocab: &Vocab) -> Result<Merges, String> {
    let normal = |text: &str| -> Option<u32> {
        let id = *vocab.get(text)?;
        (pieces.get(id as usize)?.kind == NORMAL).then_some(id)
    };
    let mut pairs: Vec<(f32, u32, u32, &str, &str)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.kind == NORMAL) {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            let Some(left_id) = normal(left) else {
                continue;
            };
            let Some(right_id) = normal(right) else {
                continue;
            };
            if pairs.len() == MAX_MERGES {
                return Err(format!("more than {MAX_MERGES} merges are not supported"));
            }
            pairs.push((piece.score, left_id, right_id, left, right));
        }
    }
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    Ok(pairs
        .into_iter()
        .map(|(.., left, right)| (left.to_owned(), right.to_owned()))
        .collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The ordinary pieces of the tiny tokenizer, from id 259, with descending scores.
    pub(crate) const PIECES: [&str; 14] = [
        "▁t", "he", "▁the", "▁a", "in", "▁▁", "▁", "t", "h", "e", "a", "i", "n", "c",
    ];
    /// The merges of these pieces.
    pub(crate) const MERGES: [(&str, &str); 6] = [
        ("▁", "t"),
        ("h", "e"),
        ("▁t", "he"),
        ("▁", "a"),
        ("i", "n"),
        ("▁", "▁"),
    ];

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
        [&varint(field << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
    }

    fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
        let score = [&varint(2 << 3 | 5), score.to_le_bytes().as_slice()].concat();
        message(
            1,
            &[message(1, text.as_bytes()), score, number(3, kind)].concat(),
        )
    }

    fn all_pieces() -> Vec<u8> {
        let mut bytes = piece("<unk>", 0.0, UNKNOWN);
        bytes.extend([piece("<s>", 0.0, CONTROL), piece("</s>", 0.0, CONTROL)].concat());
        (0..=255).for_each(|byte| bytes.extend(piece(&format!("<0x{byte:02X}>"), 0.0, BYTE)));
        (0u8..).zip(PIECES).for_each(|(at, text)| {
            bytes.extend(piece(text, -f32::from(at), NORMAL));
        });
        bytes
    }

    fn trainer() -> Vec<u8> {
        message(2, &[number(3, 2), number(35, 1)].concat())
    }

    fn normalizer() -> Vec<u8> {
        message(
            3,
            &[message(1, b"identity"), number(3, 1), number(4, 0)].concat(),
        )
    }

    /// A `tokenizer.model` with 273 pieces.
    pub(crate) fn tiny_model() -> Vec<u8> {
        [all_pieces(), trainer(), normalizer()].concat()
    }

    fn problem(parts: &[Vec<u8>]) -> String {
        read(&parts.concat()).err().unwrap()
    }

    #[test]
    fn merges_are_ordered_by_score_then_ids() {
        let contents = read(&tiny_model()).unwrap();
        let merges = MERGES.map(|(left, right)| (left.to_owned(), right.to_owned()));
        assert_eq!(contents.merges, merges);
        assert_eq!(contents.vocab["▁the"], 261);
        assert_eq!(contents.unk.as_deref(), Some("<unk>"));
        assert!(contents.drops_first_space);

        let scored = |texts: &[&str], score| -> Vec<u8> {
            texts
                .iter()
                .flat_map(|text| piece(text, score, NORMAL))
                .collect()
        };
        let runs = scored(&["▁▁", "▁▁▁", "▁"], -1e9);
        let best = scored(&["b", "bb"], -1.0);
        let parts = [
            piece("?", 0.0, UNKNOWN),
            runs,
            best,
            trainer(),
            normalizer(),
        ];
        let merges = read(&parts.concat()).unwrap().merges;
        let merges: Vec<_> = merges
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(merges, [("b", "b"), ("▁▁", "▁"), ("▁", "▁▁"), ("▁", "▁")]);
    }

    #[test]
    fn control_and_byte_pieces_are_never_merged() {
        let extra = [
            piece("<", -1.0, NORMAL),
            piece("/", -1.0, NORMAL),
            piece("</", -1.0, CONTROL),
        ];
        let contents = read(&[tiny_model(), extra.concat()].concat()).unwrap();
        assert_eq!(contents.merges.len(), MERGES.len());
        assert_eq!(contents.controls, ["<s>", "</s>", "</"]);
    }

    #[test]
    fn rejects_other_models() {
        let cases = [
            (
                vec![message(2, &number(3, 2)), normalizer()],
                "without byte fallback",
            ),
            (
                vec![trainer(), message(3, &message(2, b"map"))],
                "the normalizer",
            ),
            (
                vec![trainer(), message(3, &number(5, 0))],
                "`escape_whitespaces`",
            ),
            (
                vec![trainer(), normalizer(), message(5, &message(2, b"map"))],
                "a denormalizer",
            ),
            (vec![trainer()], "the normalizer's settings are missing"),
            (vec![normalizer()], "the trainer's settings are missing"),
            (
                vec![piece("x", -1.0, USER_DEFINED), trainer(), normalizer()],
                "`x` is user-defined",
            ),
            (
                vec![piece("x", -1.0, UNUSED), trainer(), normalizer()],
                "`x` is unused",
            ),
            (
                vec![piece("x", -1.0, 7), trainer(), normalizer()],
                "`x` is of an unknown kind",
            ),
            (
                vec![piece("x", -1.0, UNKNOWN), trainer(), normalizer()],
                "a second unknown piece",
            ),
            (
                vec![piece("x", f32::NAN, NORMAL), trainer(), normalizer()],
                "the score NaN",
            ),
            (
                vec![piece("", -1.0, NORMAL), trainer(), normalizer()],
                "has 0 bytes",
            ),
            (
                vec![
                    piece(&"x".repeat(513), 0.0, NORMAL),
                    trainer(),
                    normalizer(),
                ],
                "has 513 bytes",
            ),
            (
                vec![piece("in", -1.0, NORMAL), trainer(), normalizer()],
                "263 and 273 are both `in`",
            ),
        ];
        for (parts, expected) in cases {
            let problem = problem(&[all_pieces(), parts.concat()]);
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
        assert_eq!(
            problem(&[trainer(), normalizer()]),
            "no piece is the unknown piece"
        );
    }

    #[test]
    fn rejects_lengths_beyond_the_file() {
        // A piece with a length of 2^60 bytes, a varint without an end, a group.
        let huge = [varint(1 << 3 | 2), varint(1 << 60)].concat();
        assert_eq!(problem(&[huge]), "the file is truncated");
        for bytes in [
            vec![0xff; 11],
            vec![0x0b],
            vec![0x0d, 0, 0, 0, 0],
            vec![0x08, 1],
        ] {
            assert_eq!(
                problem(&[bytes]),
                "neither a tokenizer.json nor an undamaged SentencePiece model"
            );
        }
    }
}
