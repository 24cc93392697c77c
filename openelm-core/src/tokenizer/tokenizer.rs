//! Conversion between text and token ids.
//!
//! OpenELM uses the tokenizer of LLaMA 1 and 2: SentencePiece BPE with byte fallback, 32,000
//! pieces, `<s>` = 1 before every prompt and `</s>` = 2 at the end of a text. Apple's
//! repositories contain no tokenizer; the user supplies one, as Hugging Face's `tokenizer.json` or
//! SentencePiece's `tokenizer.model`. Both give the same ids.

use std::{fmt, path::Path, sync::Arc};

use super::{
    json,
    long_text::{self, LongText},
    sections::Prefix,
    spec::{Coder, TokenizerSpec},
};
use crate::{
    error::{Error, Result},
    text_file,
    tokenizer::{
        detokenizer::{Detokenizer, Pieces},
        sentencepiece::model as sentencepiece,
    },
};

/// Largest file in bytes; LLaMA's have 0.5 MB and 1.8 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Ids of `<s>` and `</s>` in OpenELM's configuration.
const DEFAULT_BOS: u32 = 1;
const DEFAULT_EOS: u32 = 2;

/// A LLaMA tokenizer; cheap to clone, and usable from any thread.
///
/// The text of a special token inside a prompt, such as `</s>`, becomes this token and not the
/// pieces of its spelling, as in Hugging Face's tokenizers and for both formats: chat templates
/// depend on it. A caller with untrusted text may need to remove such text first.
#[derive(Clone)]
pub struct Tokenizer {
    coder: Arc<Coder>,
    long_text: Option<Arc<LongText>>,
    pieces: Arc<Pieces>,
    bos_id: u32,
    eos_id: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` or a `tokenizer.model`; the format is detected by content.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; [`Error::Tokenizer`] if it is malformed, or not
    /// BPE with byte fallback like LLaMA's.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(path, &read_file(path)?)
    }

    /// The ids of `text`, without BOS and EOS.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the vocabulary lacks a piece that its merges need, or the text is
    /// too long to be encoded.
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

    /// The text of `ids`; special tokens give no text, and each byte that is not valid UTF-8
    /// becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut detokenizer = Detokenizer::new(Arc::clone(&self.pieces));
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
        let mut detokenizer = Detokenizer::new(Arc::clone(&self.pieces));
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

    /// Checks that a model with `model_vocab` rows in its embedding can take every id.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], with both sizes, if the tokenizer has more ids.
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        let size = self.vocab_size();
        if size <= model_vocab {
            return Ok(());
        }
        Err(self.error(format!(
            "the tokenizer has {size} ids; the model's vocabulary has {model_vocab}: \
             this is not the tokenizer that the model was trained with"
        )))
    }

    /// Like [`from_file`](Self::from_file) for bytes in memory; errors name `path`.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let contents = Self::contents_of(path, bytes)?;
        Self::build(path, contents).map_err(|problem| Error::tokenizer(path, problem))
    }

    /// The contents of the tokenizer file at `path`, for writing it in another format.
    pub(crate) fn contents(path: &Path) -> Result<TokenizerSpec> {
        Self::contents_of(path, &read_file(path)?)
    }

    fn contents_of(path: &Path, bytes: &[u8]) -> Result<TokenizerSpec> {
        let refused = |problem: String| Error::tokenizer(path, problem);
        if bytes.is_empty() {
            return Err(refused("the file is empty".to_owned()));
        }
        let contents = if is_json(bytes) {
            text_file::decode(bytes.to_vec()).and_then(|text| json::read(text.as_bytes()))
        } else {
            sentencepiece::read(bytes)
        };
        contents.map_err(refused)
    }

    fn build(path: &Path, contents: TokenizerSpec) -> Result<Self, String> {
        contents.check()?;
        let mut pieces = Pieces::new(path.to_owned(), &contents.vocab, contents.drops_first_space)?;
        let tokens = contents.added_tokens();
        let TokenizerSpec { bos, eos, .. } = &contents;
        let (bos, eos) = (bos.clone(), eos.clone());
        let coder = contents.into_coder(&tokens)?;
        for (id, token) in &tokens {
            let name = &token.content;
            if let Some(found) = coder.token_to_id(name).filter(|found| found != id) {
                return Err(format!(
                    "added token `{name}`: id {id} expected, found {found}"
                ));
            }
            // The coder stores the normalized text of the token.
            let name = coder.id_to_token(*id).unwrap_or_else(|| name.clone());
            pieces.add(*id, &name, token.special)?;
        }
        let bos_id = control(&coder, &mut pieces, &bos, DEFAULT_BOS)?;
        let eos_id = control(&coder, &mut pieces, &eos, DEFAULT_EOS)?;
        Ok(Self {
            long_text: LongText::new(&coder).map(Arc::new),
            coder: Arc::new(coder),
            pieces: Arc::new(pieces),
            bos_id,
            eos_id,
        })
    }

    #[cfg(test)]
    pub(super) fn coder(&self) -> &Coder {
        &self.coder
    }

    /// The ids of `text`, with the spaces that `prefix` describes.
    pub(super) fn ids(&self, text: &str, prefix: Prefix) -> Result<Vec<u32>> {
        long_text::encode(&self.coder, self.long_text.as_deref(), text, prefix)
            .map_err(|error| self.error(error.to_string()))
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

/// The id of the special token `name`, or `default` if it is another special token's id.
fn control(coder: &Coder, pieces: &mut Pieces, name: &str, default: u32) -> Result<u32, String> {
    if let Some(id) = coder.token_to_id(name) {
        pieces.add(id, name, true)?;
        return Ok(id);
    }
    if pieces.is_special(default) {
        return Ok(default);
    }
    Err(format!(
        "there is no `{name}`, and {default} is not the id of a special token"
    ))
}

/// The bytes of a tokenizer file.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    text_file::read_bytes(path, MAX_FILE_BYTES, |problem| {
        Error::tokenizer(path, problem)
    })
}

/// True for a JSON file. A SentencePiece model begins with the tag of a piece, 0x0A, and a length,
/// never a brace or a byte order mark.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    let is_marked = [&b"\xEF\xBB\xBF"[..], b"\xFF\xFE", b"\xFE\xFF"]
        .iter()
        .any(|mark| bytes.starts_with(mark));
    is_marked || bytes.trim_ascii_start().first() == Some(&b'{')
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
