//! Conversion between text and token ids.
//!
//! OpenELM uses the tokenizer of LLaMA 1 and 2: SentencePiece BPE with byte fallback, 32,000
//! pieces, `<s>` = 1 before every prompt and `</s>` = 2 at the end of a text. Apple's
//! repositories contain no tokenizer; the user supplies one, as Hugging Face's `tokenizer.json` or
//! SentencePiece's `tokenizer.model`. Both give the same ids. Models that were trained elsewhere
//! may have any other `tokenizer.json`.

use std::{
    any::Any,
    fmt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    detokenizer::{Detokenizer, Pieces},
    library::guarded,
    long_text::{self, LongText},
    sections::Prefix,
    spec::Coder,
};
use crate::error::{Error, Result};

/// A tokenizer; cheap to clone, and usable from any thread.
///
/// BOS and EOS are the tokens that `tokenizer_config.json` or `special_tokens_map.json` beside the
/// file names, else `<s>` and `</s>`, else the ids in `generation_config.json` or `config.json`.
/// A tokenizer without BOS begins a text with EOS, as GPT-2 does.
///
/// The text of a special token inside a prompt, such as `</s>`, becomes this token and not the
/// pieces of its spelling, as in Hugging Face's tokenizers and for both formats.
/// [`encode_plain_prompt`](Self::encode_plain_prompt) reads it as text, and so do chat templates for
/// the content of messages.
#[derive(Clone)]
pub struct Tokenizer {
    pub(super) coder: Arc<Coder>,
    /// The division of a long text; `None` if it is encoded as a whole.
    pub(super) long_text: Option<Arc<LongText>>,
    pub(super) pieces: Arc<Pieces>,
    /// True for a tokenizer like LLaMA's, which is decoded by its pieces.
    pub(super) is_llama: bool,
    pub(super) bos_id: u32,
    pub(super) eos_id: u32,
    /// Number of ids that the model has.
    pub(super) model_vocab: Option<usize>,
    /// See [`companion`](Self::companion).
    pub(super) companion: Companion,
}

/// A value that another folder computes from the tokenizer once.
#[derive(Clone, Default)]
pub(super) struct Companion {
    made: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
    /// Held by the thread that computes it.
    making: Arc<Mutex<()>>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` or a `tokenizer.model`; the format is detected by content.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; [`Error::Tokenizer`] if it is malformed, or a
    /// SentencePiece model that is not BPE with byte fallback like LLaMA's.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), None)
    }

    /// The ids of `text`, without BOS and EOS.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the vocabulary lacks a piece that its merges need, the text is too
    /// long to be encoded, or the text has a token that the model does not have (see
    /// [`with_model_vocab`](Self::with_model_vocab)).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, Prefix::All)
    }

    /// The ids of a prompt: BOS, exactly once even if `text` itself begins with `<s>`, then
    /// `text`. EOS is never added.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if ids.first() != Some(&self.bos_id) {
            ids.insert(0, self.bos_id);
        }
        Ok(ids)
    }

    /// The text of `ids`; special tokens give no text, and bytes that are not valid UTF-8 become
    /// U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut detokenizer = self.start();
        let mut text = String::with_capacity(ids.len() * 4);
        for &id in ids {
            detokenizer.push_to(id, &mut text)?;
        }
        text.push_str(&detokenizer.finish());
        Ok(text)
    }

    /// A detokenizer for the ids after `context`, the prompt: its whole text is
    /// [`decode`](Self::decode) of both without the text of `context`. An id of `context` that is
    /// not in the vocabulary has no text.
    pub fn detokenizer(&self, context: &[u32]) -> Detokenizer {
        let mut detokenizer = self.start();
        let mut text = String::new();
        for &id in context {
            // A failed push does not change the state.
            let _ = detokenizer.push_to(id, &mut text);
            text.clear();
        }
        detokenizer
    }

    /// The piece `id` in the vocabulary's spelling (`▁the`, `<0x0A>`, `</s>`).
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.name(id)
    }

    /// The id of `piece` in the vocabulary's spelling.
    pub fn piece_id(&self, piece: &str) -> Option<u32> {
        self.coder.token_to_id(piece)
    }

    /// Highest id + 1.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// Id of `<s>`, which starts every prompt; 1 in LLaMA.
    pub fn bos_id(&self) -> u32 {
        self.bos_id
    }

    /// Id of `</s>`, which ends a text; 2 in LLaMA.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// A copy of the tokenizer that encodes the spelling of a special token as plain text: for
    /// documents, which may contain `</s>` before their end.
    pub(crate) fn literal(&self) -> Self {
        let mut coder = Coder::clone(&self.coder);
        coder.set_encode_special_tokens(true);
        Self {
            coder: Arc::new(coder),
            ..self.clone()
        }
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        self.pieces.path()
    }

    /// The tokenizer for a model with `model_vocab` rows in its embedding. A tokenizer may have
    /// more ids, such as a `<pad>` that was added to LLaMA's 32,000: encoding a text that has such
    /// a token is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the model does not have BOS or EOS.
    pub fn with_model_vocab(self, model_vocab: usize) -> Result<Self> {
        let tokenizer = Self {
            model_vocab: Some(model_vocab),
            companion: Companion::default(),
            ..self
        };
        tokenizer.check_ids(&[tokenizer.bos_id, tokenizer.eos_id])?;
        Ok(tokenizer)
    }

    /// Refuses a tokenizer of another model: one with ordinary tokens, not only added ones, that a
    /// model with `model_vocab` rows in its embedding does not have.
    pub(crate) fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        let added = self.coder.get_added_tokens_decoder();
        let size = self.vocab_size();
        let mut beyond = model_vocab as u32..size as u32;
        if beyond.all(|id| added.contains_key(&id) || self.piece(id).is_none()) {
            return Ok(());
        }
        Err(self.error(format!(
            "the tokenizer has {size} ids; the model's vocabulary has {model_vocab}: \
             this is not the tokenizer that the model was trained with"
        )))
    }

    /// True for a tokenizer like LLaMA's: BPE with byte fallback, spaces written as `▁`.
    pub(crate) fn is_llama(&self) -> bool {
        self.is_llama
    }

    /// The value of `make`, computed once for this tokenizer and its clones. All callers use one
    /// type.
    ///
    /// # Errors
    /// Those of `make`, which the next call repeats.
    pub(crate) fn companion<T: Any + Send + Sync>(
        &self,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        if let Some(made) = self.made_companion() {
            return Ok(made);
        }
        let Companion { made, making } = &self.companion;
        // Threads that need it at the same time wait for the first.
        let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
        if made.get().is_none() {
            let value: Arc<dyn Any + Send + Sync> = Arc::new(make()?);
            let _ = made.set(value);
        }
        let other = || self.error("its companion has another type".to_owned());
        self.made_companion().ok_or_else(other)
    }

    /// The value of [`companion`](Self::companion) if it was computed.
    pub(crate) fn made_companion<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let made = self.companion.made.get()?;
        Arc::clone(made).downcast().ok()
    }

    /// A detokenizer at the start of a text.
    fn start(&self) -> Detokenizer {
        let pieces = Arc::clone(&self.pieces);
        if self.is_llama {
            Detokenizer::of_pieces(pieces)
        } else {
            Detokenizer::of_coder(Arc::clone(&self.coder), pieces)
        }
    }

    /// Refuses ids that the model does not have.
    pub(super) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let Some(size) = self.model_vocab else {
            return Ok(());
        };
        match ids.iter().find(|&&id| id as usize >= size) {
            None => Ok(()),
            Some(&id) => Err(self.error(format!(
                "the text has the token `{}`, id {id}; the model's vocabulary has {size} ids",
                self.piece(id).unwrap_or_default()
            ))),
        }
    }

    #[cfg(test)]
    pub(super) fn coder(&self) -> &Coder {
        &self.coder
    }

    /// The ids of `text`, with the spaces that `prefix` describes.
    pub(super) fn ids(&self, text: &str, prefix: Prefix) -> Result<Vec<u32>> {
        let long_text = self.long_text.as_deref();
        let ids = guarded(|| long_text::encode(&self.coder, long_text, text, prefix));
        let ids = ids.map_err(|problem| self.error(problem))?;
        self.check_ids(&ids)?;
        Ok(ids)
    }

    fn error(&self, problem: String) -> Error {
        Error::tokenizer(self.path(), problem)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("path", &self.path())
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::tokenizer::json::tests::tiny_json;
    use crate::tokenizer::sentencepiece::model::tests::tiny_model;
    use openelm_testing::{Random, random_text};

    fn from_json(file: &Value) -> Result<Tokenizer> {
        Tokenizer::from_bytes(Path::new("tokenizer.json"), file.to_string().as_bytes())
    }

    fn from_model(bytes: &[u8]) -> Result<Tokenizer> {
        Tokenizer::from_bytes(Path::new("tokenizer.model"), bytes)
    }

    /// The tiny tokenizer in both formats.
    fn tiny() -> [Tokenizer; 2] {
        [
            from_json(&tiny_json()).unwrap(),
            from_model(&tiny_model()).unwrap(),
        ]
    }

    #[test]
    fn both_formats_give_the_same_ids() {
        for tokenizer in tiny() {
            assert_eq!(
                tokenizer.encode("the cat").unwrap(),
                [261, 265, 272, 269, 266]
            );
            assert_eq!(tokenizer.encode("é").unwrap(), [265, 198, 172]);
            assert_eq!(tokenizer.encode("  the  ").unwrap(), [264, 261, 264]);
            assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
            assert_eq!(tokenizer.vocab_size(), 273);
            assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (1, 2));
            assert_eq!(
                (tokenizer.piece(261), tokenizer.piece(273)),
                (Some("▁the"), None)
            );
            assert_eq!(
                (tokenizer.piece_id("▁the"), tokenizer.piece_id("x")),
                (Some(261), None)
            );
        }
    }

    #[test]
    fn prompt_has_one_bos_and_special_tokens() {
        for tokenizer in tiny() {
            assert_eq!(tokenizer.encode_prompt("").unwrap(), [1]);
            assert_eq!(
                tokenizer.encode_prompt("the the the the").unwrap(),
                [1, 261, 261, 261, 261]
            );
            assert_eq!(tokenizer.encode_prompt("<s>the").unwrap(), [1, 261]);
            assert_eq!(tokenizer.encode_prompt("a</s>a").unwrap(), [1, 262, 2, 262]);
            assert_eq!(tokenizer.decode(&[1, 262, 2, 262]).unwrap(), "a a");
        }
    }

    #[test]
    fn generated_text_keeps_its_leading_space() {
        for tokenizer in tiny() {
            let mut after = tokenizer.detokenizer(&[1, 261]);
            assert_eq!(after.push(261).unwrap(), " the");
            for context in [&[1][..], &[], &[300, 2]] {
                let mut alone = tokenizer.detokenizer(context);
                assert_eq!(alone.push(261).unwrap(), "the");
            }
            let message = tokenizer.decode(&[300]).unwrap_err().to_string();
            assert!(message.contains("no piece has the id 300"), "{message}");
        }
    }

    #[test]
    fn random_text_round_trips() {
        let [json, model] = tiny();
        let mut random = Random(3);
        for _ in 0..3_000 {
            let text = random_text(&mut random);
            let ids = json.encode(&text).unwrap();
            assert_eq!(json.decode(&ids).unwrap(), text);
            assert_eq!(model.encode(&text).unwrap(), ids, "{text:?}");
        }
    }

    #[test]
    fn tokenizer_is_send_and_sync() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Tokenizer>();
        check::<Detokenizer>();
    }
}
