//! A tokenizer's vocabulary as a trie of bytes.

use std::{fmt, sync::Arc};

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::{
    caught,
    error::{Error, Result},
    tokenizer::{Detokenizer, TokenOutput, Tokenizer},
};

/// Longest token in bytes that the trie can hold. A longer token is never allowed.
const MAX_TOKEN_BYTES: usize = 1_000;

/// The output of every token that may be drawn.
pub(super) struct Vocabulary {
    env: TokEnv,
    eos: u32,
    /// Ids whose text contains a space.
    spaced: Vec<u32>,
    /// A token whose text begins with a space and has more text.
    probe: Option<u32>,
}

impl Vocabulary {
    /// The vocabulary of `tokenizer`, up to the ids that the model has.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text of a token depends on its neighbours.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let outputs = tokenizer.outputs()?;
        let eos = tokenizer.eos_id();
        let mut words = Vec::with_capacity(outputs.len());
        let (mut spaced, mut probe) = (Vec::new(), None);
        for (id, output) in (0_u32..).zip(outputs) {
            words.push(match output {
                // EOS ends the text, whatever its piece is.
                TokenOutput::Text(_) if id == eos => special("eos"),
                TokenOutput::Text(bytes) if bytes.len() <= MAX_TOKEN_BYTES => {
                    if bytes.contains(&b' ') {
                        spaced.push(id);
                    }
                    let begins = bytes.first() == Some(&b' ');
                    if probe.is_none() && begins && bytes.get(1).is_some_and(u8::is_ascii_graphic) {
                        probe = Some(id);
                    }
                    bytes
                }
                TokenOutput::Text(_) | TokenOutput::Gap => Vec::new(),
                TokenOutput::Special(name) => special(&name),
            });
        }
        let info = TokRxInfo::new(words.len() as u32, eos);
        // The library asserts the limits of its trie.
        let trie = caught::catch(|| TokTrie::from(&info, &words));
        let trie = trie.ok_or_else(|| {
            let problem = "structured output does not support this vocabulary: it is too large";
            Error::tokenizer(tokenizer.path(), problem)
        })?;
        Ok(Self {
            env: Arc::new(ApproximateTokEnv::new(trie)),
            eos,
            spaced,
            probe,
        })
    }

    pub(super) fn env(&self) -> &TokEnv {
        &self.env
    }

    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.env.tok_trie().vocab_size()
    }

    /// The ids whose text contains a space.
    pub(super) fn spaced(&self) -> &[u32] {
        &self.spaced
    }

    /// True if the token has a text.
    pub(super) fn has_text(&self, id: u32) -> bool {
        let trie = self.env.tok_trie();
        (id as usize) < self.len() && !trie.token(id).is_empty() && !trie.is_special_token(id)
    }

    /// True if `detokenizer` drops the space at the start of the next token's text.
    pub(super) fn drops_space(&self, detokenizer: &Detokenizer) -> bool {
        let Some(probe) = self.probe else {
            return false;
        };
        let text = detokenizer.clone().push(probe);
        text.is_ok_and(|text| !text.starts_with(' '))
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Vocabulary")
            .field("len", &self.len())
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// The bytes of a special token in the trie: no text contains its first byte.
fn special(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let name = &name[..name.len().min(MAX_TOKEN_BYTES)];
    [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat()
}
