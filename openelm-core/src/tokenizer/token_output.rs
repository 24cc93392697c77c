//! The output of single tokens, for constraints on a text.

use std::collections::HashMap;

use serde_json::Value;

use super::{detokenizer::Kind, tokenizer::Tokenizer};
use crate::error::{Error, Result};

/// The output of a token inside a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenOutput {
    /// Bytes of the text; a character may be divided between tokens.
    Text(Vec<u8>),
    /// No text: a special token of this name.
    Special(String),
    /// An id without a token.
    Gap,
}

/// Rules of a decoder by which a token's bytes do not depend on its neighbours.
enum Rule {
    /// Each character of the piece is a byte, as in GPT-2.
    ByteLevel,
    /// Text of the piece is replaced, in this order; `<0x0A>` is a byte if `bytes`.
    Replace {
        pairs: Vec<(String, String)>,
        bytes: bool,
    },
}

impl Tokenizer {
    /// The output of every id that the model has, after other text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text of a token depends on its neighbours.
    pub(crate) fn outputs(&self) -> Result<Vec<TokenOutput>> {
        let rule = if self.is_llama() {
            Rule::Replace {
                pairs: vec![("▁".to_owned(), " ".to_owned())],
                bytes: true,
            }
        } else {
            let decoder = self.coder.get_decoder().map(serde_json::to_value);
            let decoder = decoder.transpose().ok().flatten().unwrap_or_default();
            Rule::of(&decoder).ok_or_else(|| {
                let kind = decoder.get("type").and_then(Value::as_str);
                let problem = format!(
                    "structured output: expected a decoder whose tokens have a text of their own \
                     (ByteLevel, Metaspace, or Replace with ByteFallback), found {}",
                    kind.unwrap_or("none")
                );
                Error::tokenizer(self.path(), problem)
            })?
        };
        let bytes = byte_level();
        let len = self
            .vocab_size()
            .min(self.model_vocab.unwrap_or(usize::MAX));
        let outputs = (0..len as u32).map(|id| match self.pieces.piece(id) {
            None => TokenOutput::Gap,
            Some((name, Kind::Special)) => TokenOutput::Special(name.to_owned()),
            Some((name, kind)) => TokenOutput::Text(rule.apply(name, kind, &bytes)),
        });
        Ok(outputs.collect())
    }
}

impl Rule {
    /// The rule of a decoder of `tokenizer.json`; `None` if there is none.
    fn of(decoder: &Value) -> Option<Self> {
        let text = |step: &Value, pointer: &str| {
            step.pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let one = std::slice::from_ref(decoder);
        let steps = match decoder.get("decoders") {
            Some(list) => list.as_array()?,
            None => one,
        };
        let (mut pairs, mut bytes) = (Vec::new(), false);
        for step in steps {
            match step.get("type")?.as_str()? {
                "ByteLevel" if steps.len() == 1 => return Some(Self::ByteLevel),
                "ByteFallback" => bytes = true,
                // Removes characters at the start of a text.
                "Fuse" => {}
                "Strip" if step.get("stop")?.as_u64()? == 0 => {}
                "Replace" => pairs.push((text(step, "/pattern/String")?, text(step, "/content")?)),
                "Metaspace" => pairs.push((text(step, "/replacement")?, " ".to_owned())),
                _ => return None,
            }
        }
        Some(Self::Replace { pairs, bytes })
    }

    /// The bytes of the piece `name`.
    fn apply(&self, name: &str, kind: Kind, byte_level: &HashMap<char, u8>) -> Vec<u8> {
        match (self, kind) {
            // The library passes a piece with other characters unchanged.
            (Self::ByteLevel, _) => {
                let bytes = name.chars().map(|c| byte_level.get(&c).copied());
                let bytes: Option<Vec<u8>> = bytes.collect();
                bytes.unwrap_or_else(|| name.as_bytes().to_vec())
            }
            (Self::Replace { bytes: true, .. }, Kind::Byte(byte)) => vec![byte],
            (Self::Replace { pairs, .. }, _) => {
                let replaced = pairs
                    .iter()
                    .fold(name.to_owned(), |text, (from, to)| text.replace(from, to));
                replaced.into_bytes()
            }
        }
    }
}

/// The bytes of GPT-2's characters: printable ones are themselves, the others follow U+0100.
fn byte_level() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=u8::MAX)
        .filter(printable)
        .map(|byte| (char::from(byte), byte));
    let others = (0..=u8::MAX).filter(|byte| !printable(byte));
    own.chain(('\u{100}'..).zip(others)).collect()
}
