//! Decoding by the rules of SentencePiece, for tokenizers like LLaMA's.

use std::sync::Arc;

use super::pieces::{Kind, Pieces};
use crate::error::Result;

/// A stream of pieces; a character of several byte pieces is held back until it is complete.
#[derive(Clone, Debug)]
pub(super) struct PieceStream {
    pieces: Arc<Pieces>,
    /// The first bytes of a character, at most three.
    held: Vec<u8>,
    /// True before the first text, if its leading space is dropped.
    drops_space: bool,
}

impl PieceStream {
    /// Starts a text.
    pub(super) fn new(pieces: Arc<Pieces>) -> Self {
        let drops_space = pieces.drops_first_space;
        Self {
            pieces,
            held: Vec::new(),
            drops_space,
        }
    }

    /// The vocabulary.
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Appends the text that is final after `id` to `text`.
    pub(super) fn push_to(&mut self, id: u32, text: &mut String) -> Result<()> {
        let pieces = Arc::clone(&self.pieces);
        let piece = pieces.get(id)?;
        match piece.kind {
            Kind::Special => {}
            Kind::Byte(byte) => {
                self.held.push(byte);
                self.release(text);
            }
            Kind::Text => {
                self.flush(text);
                for (index, words) in piece.name.split('▁').enumerate() {
                    if index > 0 {
                        self.append(" ", text);
                    }
                    self.append(words, text);
                }
            }
        }
        Ok(())
    }

    /// Moves the part of the held bytes that is final into `text`.
    fn release(&mut self, text: &mut String) {
        loop {
            let held = std::mem::take(&mut self.held);
            match std::str::from_utf8(&held) {
                Ok(whole) => return self.append(whole, text),
                Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => {
                    self.held = held;
                    return;
                }
                // The held bytes never begin with a complete character and a further byte, so
                // the invalid byte is the first.
                Err(_) => {
                    self.append("\u{fffd}", text);
                    self.held = held.into_iter().skip(1).collect();
                }
            }
        }
    }

    /// Replaces the held bytes by U+FFFD.
    pub(super) fn flush(&mut self, text: &mut String) {
        for _ in 0..std::mem::take(&mut self.held).len() {
            self.append("\u{fffd}", text);
        }
    }

    fn append(&mut self, words: &str, text: &mut String) {
        if words.is_empty() {
            return;
        }
        let dropped = if self.drops_space {
            words.strip_prefix(' ')
        } else {
            None
        };
        self.drops_space = false;
        text.push_str(dropped.unwrap_or(words));
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::models::bpe::Vocab;

    use super::*;
    use crate::tokenizer::Detokenizer;

    /// Ids 0 to 255 are the bytes; the words follow.
    const WORDS: [&str; 8] = ["</s>", "▁", "▁the", "cat", "▁▁▁", "é", "s▁", "<0x4"];
    const EOS: u32 = 256;

    fn pieces(drops_first_space: bool) -> Arc<Pieces> {
        let bytes = (0..=255).map(|byte: u32| (format!("<0x{byte:02X}>"), byte));
        let words = (256..).zip(WORDS).map(|(id, word)| (word.to_owned(), id));
        let vocab: Vocab = bytes.chain(words).collect();
        let mut pieces = Pieces::new("tiny".into(), vocab, drops_first_space).unwrap();
        pieces.add(EOS, "</s>", true).unwrap();
        Arc::new(pieces)
    }

    fn stream(pieces: &Arc<Pieces>, ids: &[u32]) -> Vec<String> {
        let mut detokenizer = Detokenizer::of_pieces(Arc::clone(pieces));
        let mut parts: Vec<_> = ids
            .iter()
            .map(|&id| detokenizer.push(id).unwrap())
            .collect();
        parts.push(detokenizer.finish());
        parts
    }

    /// A second implementation of the rules, over the whole text and without state.
    fn whole(pieces: &Pieces, ids: &[u32]) -> String {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| id != EOS).collect();
        let mut text = String::new();
        for run in ids.chunk_by(|a, b| (*a < 256) == (*b < 256)) {
            if run[0] >= 256 {
                run.iter()
                    .for_each(|&id| text += &pieces.name(id).unwrap().replace('▁', " "));
                continue;
            }
            let bytes: Vec<u8> = run.iter().map(|&id| id as u8).collect();
            let mut at = 0;
            while at < bytes.len() {
                let lengths = 1..=(bytes.len() - at).min(4);
                let ends = lengths.map(|length| at + length);
                let mut whole = ends.filter_map(|end| std::str::from_utf8(&bytes[at..end]).ok());
                let character = whole.next().unwrap_or("\u{fffd}");
                at += if character == "\u{fffd}" {
                    1
                } else {
                    character.len()
                };
                text += character;
            }
        }
        let dropped = text.strip_prefix(' ').filter(|_| pieces.drops_first_space);
        dropped.unwrap_or(&text).to_owned()
    }

    /// Splitmix64, limited to values below `limit`.
    fn random(state: &mut u64, limit: u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// Words, special tokens, any bytes, and the bytes of long characters, whole or cut.
    fn random_ids(state: &mut u64) -> Vec<u32> {
        let mut ids = Vec::new();
        for _ in 0..random(state, 12) {
            match random(state, 4) {
                0 => ids.push(random(state, 256) as u32),
                1 => {
                    let kept = random(state, 5) as usize;
                    ids.extend("🦙".bytes().take(kept).map(u32::from));
                }
                _ => ids.push(256 + random(state, WORDS.len() as u64) as u32),
            }
        }
        ids
    }

    #[test]
    fn emits_text_as_soon_as_it_is_final() {
        let pieces = pieces(true);
        let [the, cat] = [258, 259];
        assert_eq!(
            stream(&pieces, &[the, cat, the]),
            ["the", "cat", " the", ""]
        );
        let llama: Vec<u32> = "🦙!".bytes().map(u32::from).collect();
        assert_eq!(stream(&pieces, &llama), ["", "", "", "🦙", "!", ""]);
        // A special token does not end a run of bytes, a word does.
        assert_eq!(stream(&pieces, &[0xc3, EOS, 0xa9]), ["", "", "é", ""]);
        assert_eq!(
            stream(&pieces, &[0xe5, 0x8f, cat]),
            ["", "", "\u{fffd}\u{fffd}cat", ""]
        );
        assert_eq!(
            stream(&pieces, &[0xf0, 0x9f, 0x41]),
            ["", "", "\u{fffd}\u{fffd}A", ""]
        );
        assert_eq!(stream(&pieces, &[0xff, 0xe5]), ["\u{fffd}", "", "\u{fffd}"]);
    }

    #[test]
    fn drops_one_leading_space_only() {
        let [space, spaces, the] = [257, 260, 258];
        for (ids, with, without) in [
            (vec![the, the], "the the", " the the"),
            (vec![EOS, space, the], " the", "  the"),
            (vec![spaces, spaces], "     ", "      "),
            (vec![0x20, the], " the", "  the"),
            (vec![], "", ""),
        ] {
            assert_eq!(stream(&pieces(true), &ids).concat(), with);
            assert_eq!(stream(&pieces(false), &ids).concat(), without);
        }
    }

    #[test]
    fn streamed_text_equals_whole_text() {
        for drops_first_space in [true, false] {
            let pieces = pieces(drops_first_space);
            let mut state = 7;
            for _ in 0..20_000 {
                let ids = random_ids(&mut state);
                assert_eq!(
                    stream(&pieces, &ids).concat(),
                    whole(&pieces, &ids),
                    "{ids:?}"
                );
            }
        }
    }

    #[test]
    fn prompt_ending_in_a_word_splits_nothing() {
        let pieces = pieces(true);
        let mut state = 11;
        for _ in 0..5_000 {
            let mut prompt = random_ids(&mut state);
            prompt.push(259);
            let answer = random_ids(&mut state);
            let all = [prompt.clone(), answer.clone()].concat();
            let mut detokenizer = Detokenizer::of_pieces(Arc::clone(&pieces));
            prompt
                .iter()
                .for_each(|&id| drop(detokenizer.push(id).unwrap()));
            let mut text: String = answer
                .iter()
                .map(|&id| detokenizer.push(id).unwrap())
                .collect();
            text += &detokenizer.finish();
            assert_eq!(whole(&pieces, &all), whole(&pieces, &prompt) + &text);
        }
    }

    #[test]
    fn unknown_id_is_an_error_and_changes_nothing() {
        let mut detokenizer = Detokenizer::of_pieces(pieces(true));
        assert_eq!(detokenizer.push(0xc3).unwrap(), "");
        for id in [264, u32::MAX] {
            let message = detokenizer.push(id).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("tiny: no piece has the id {id}; there are 264 ids")
            );
        }
        assert_eq!(detokenizer.push(0xa9).unwrap(), "é");
    }
}
