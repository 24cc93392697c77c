//! A tokenizer from the bytes of a file, and the files beside it.

use std::{borrow::Cow, path::Path, sync::Arc};

use tokenizers::AddedToken;

use super::{
    detokenizer::Pieces,
    json, library,
    long_text::LongText,
    sentencepiece::model as sentencepiece,
    spec::{Coder, TokenizerSpec},
    special_tokens::{self, SpecialTokens},
    tokenizer::{Companion, Tokenizer},
};
use crate::{
    error::{Error, Result},
    text_file,
};

/// Largest file in bytes; LLaMA's have 0.5 MB and 1.8 MB, those with 256,000 tokens 33 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Ids of `<s>` and `</s>` in OpenELM's configuration.
const DEFAULT_BOS: u32 = 1;
const DEFAULT_EOS: u32 = 2;

impl Tokenizer {
    /// Like [`from_file`](Self::from_file), for the model in `model`, whose files state BOS and
    /// EOS if the files beside the tokenizer do not.
    pub(super) fn read(path: &Path, model: Option<&Path>) -> Result<Self> {
        let beside = path.parent().unwrap_or(Path::new(""));
        let folders: Vec<&Path> = [beside].into_iter().chain(model).collect();
        Self::with_special_tokens(path, &read_file(path)?, &folders)
    }

    /// Like [`from_file`](Self::from_file) for bytes in memory, without the files beside it;
    /// errors name `path`.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        Self::with_special_tokens(path, bytes, &[])
    }

    /// The contents of the tokenizer file at `path`, for writing it in another format.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it is not like LLaMA's.
    pub(crate) fn contents(path: &Path) -> Result<TokenizerSpec> {
        let bytes = read_file(path)?;
        let contents = if is_json(&bytes) {
            text_file::decode(bytes).and_then(|text| llama_contents(text.as_bytes()))
        } else {
            llama_contents(&bytes)
        };
        contents.map_err(|problem| Error::tokenizer(path, problem))
    }

    /// Reads the tokenizer in `bytes`; the files in `folders` state BOS and EOS.
    fn with_special_tokens(path: &Path, bytes: &[u8], folders: &[&Path]) -> Result<Self> {
        let refused = |problem: String| Error::tokenizer(path, problem);
        if bytes.is_empty() {
            return Err(refused("the file is empty".to_owned()));
        }
        let bytes = if is_json(bytes) {
            Cow::Owned(
                text_file::decode(bytes.to_vec())
                    .map_err(refused)?
                    .into_bytes(),
            )
        } else {
            Cow::Borrowed(bytes)
        };
        match llama_contents(&bytes) {
            Ok(contents) => {
                // LLaMA's names are known: a damaged file beside the tokenizer is ignored.
                let special = SpecialTokens::read(folders).unwrap_or_default();
                Self::build(path, contents, special).map_err(refused)
            }
            Err(problem) if !is_json(&bytes) => Err(refused(problem)),
            Err(_) => {
                let (coder, added) = library::read(&bytes).map_err(refused)?;
                let special = SpecialTokens::read(folders)?;
                Self::of_coder(path, coder, &added, special).map_err(refused)
            }
        }
    }

    fn build(path: &Path, contents: TokenizerSpec, special: SpecialTokens) -> Result<Self, String> {
        contents.check()?;
        let vocab = contents.vocab.iter().map(|(name, id)| (name.clone(), *id));
        let mut pieces = Pieces::new(path.to_owned(), vocab, contents.drops_first_space)?;
        let tokens = contents.added_tokens();
        for (id, token) in &tokens {
            if !contents.vocab.contains_key(&token.content) {
                pieces.insert(*id, &token.content)?;
            }
        }
        let special = special.or(&contents.bos, &contents.eos);
        let coder = contents.into_coder(&tokens)?;
        Self::assemble(coder, pieces, &tokens, special, true)
    }

    /// A tokenizer that the tokenizers library decodes.
    fn of_coder(
        path: &Path,
        coder: Coder,
        added: &[(u32, AddedToken)],
        special: SpecialTokens,
    ) -> Result<Self, String> {
        let pieces = Pieces::new(path.to_owned(), coder.get_vocab(true), false)?;
        let special = special.or("<s>", "</s>");
        Self::assemble(coder, pieces, added, special, false)
    }

    fn assemble(
        mut coder: Coder,
        mut pieces: Pieces,
        added: &[(u32, AddedToken)],
        special: SpecialTokens,
        is_llama: bool,
    ) -> Result<Self, String> {
        for (id, token) in added {
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
        let eos = special.eos.find(&mut coder, &mut pieces, DEFAULT_EOS)?;
        let bos = special.bos.find(&mut coder, &mut pieces, DEFAULT_BOS)?;
        let Some(eos_id) = eos else {
            return Err(format!(
                "no EOS: there is no `</s>`, {DEFAULT_EOS} is not the id of a special token, and \
                 no tokenizer_config.json beside it names an `eos_token` of the vocabulary"
            ));
        };
        Ok(Self {
            long_text: LongText::new(&coder).map(Arc::new),
            coder: Arc::new(coder),
            pieces: Arc::new(pieces),
            is_llama,
            bos_id: bos.unwrap_or(eos_id),
            eos_id,
            model_vocab: None,
            companion: Companion::default(),
        })
    }
}

/// The contents of a tokenizer file like LLaMA's.
fn llama_contents(bytes: &[u8]) -> Result<TokenizerSpec, String> {
    let contents = if is_json(bytes) {
        json::read(bytes)?
    } else {
        sentencepiece::read(bytes)?
    };
    contents.check_bytes()?;
    Ok(contents)
}

impl special_tokens::Token {
    /// The id of the first name or id that the vocabulary has, or `default` if it is a special
    /// token's id.
    fn find(
        &self,
        coder: &mut Coder,
        pieces: &mut Pieces,
        default: u32,
    ) -> Result<Option<u32>, String> {
        for name in &self.names {
            if let Some(id) = coder.token_to_id(name) {
                make_special(coder, id, name).map_err(|error| error.to_string())?;
                pieces.add(id, name, true)?;
                return Ok(Some(id));
            }
        }
        let known = |id: &&u32| pieces.name(**id).is_some();
        let stated = self.ids.iter().find(known).copied();
        Ok(stated.or_else(|| pieces.is_special(default).then_some(default)))
    }
}

/// Makes an existing token special, as transformers does with a BOS or EOS of the settings.
fn make_special(coder: &mut Coder, id: u32, name: &str) -> tokenizers::Result<()> {
    if coder.get_added_vocabulary().is_special_token(name) {
        return Ok(());
    }
    let existing = coder.get_added_tokens_decoder().remove(&id);
    let mut token = existing.unwrap_or_else(|| AddedToken::from(name, true));
    token.special = true;
    coder.add_special_tokens([token])?;
    Ok(())
}

/// The bytes of a tokenizer file.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let wrong = |problem| Error::tokenizer(path, problem);
    let bytes = text_file::read_bytes(path, MAX_FILE_BYTES, wrong)?;
    if bytes.starts_with(text_file::LFS_POINTER) {
        return Err(wrong(text_file::LFS_PROBLEM.into()));
    }
    Ok(bytes)
}

/// True for a JSON file. A SentencePiece model begins with the tag of a piece, 0x0A, and a length,
/// never a brace or a byte order mark.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    let is_marked = [&b"\xEF\xBB\xBF"[..], b"\xFF\xFE", b"\xFE\xFF"]
        .iter()
        .any(|mark| bytes.starts_with(mark));
    is_marked || bytes.trim_ascii_start().first() == Some(&b'{')
}
