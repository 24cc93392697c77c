//! Reads any `tokenizer.json` with the Hugging Face tokenizers library: byte-level BPE, Unigram,
//! WordPiece, WordLevel, with the file's own normalizer, pre-tokenizer and decoder.
//!
//! Truncation, padding, post-processing and BPE dropout are ignored: a prompt is never cut, and
//! this crate adds BOS. The library assigns ids to added tokens in their order; here they have the
//! ids of the file, for which the embedding was trained.

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    models::{ModelWrapper, bpe::Vocab},
};

use super::{merge::Merge, spec::Coder};
use crate::{
    caught,
    json::{self, or_default, without_null},
};

/// The coder of a `tokenizer.json`, and its added tokens.
pub(super) fn read(bytes: &[u8]) -> Result<(Coder, Vec<(u32, AddedToken)>), String> {
    json::check_depth(bytes)?;
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_merges(bytes, &head.model)?;
    let added: Vec<_> = head.added_tokens.into_iter().map(Added::token).collect();
    let mut coder = parse(bytes)?;
    if let Some((id, token)) = misplaced(&coder, &added) {
        let problem = format!("added token `{}`: id {id} expected", token.content);
        coder = parse(&with_listed_ids(bytes, &added).ok_or_else(|| problem.clone())?)?;
        if misplaced(&coder, &added).is_some() {
            return Err(problem);
        }
    }
    coder
        .with_truncation(None)
        .map_err(|error| error.to_string())?;
    coder.with_padding(None);
    coder.with_post_processor(None::<PostProcessorWrapper>);
    if let ModelWrapper::BPE(bpe) = coder.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        coder.with_model(bpe);
    }
    Ok((coder, added))
}

/// Runs `work` of the library and turns a panic on a corrupt file into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match caught::catch(work) {
        Some(done) => done.map_err(|error| error.to_string()),
        None => Err("not a valid tokenizer: the tokenizers library failed".into()),
    }
}

/// The parts of a file that are checked before the library reads it.
#[derive(Deserialize)]
struct Head {
    #[serde(default, deserialize_with = "or_default")]
    added_tokens: Vec<Added>,
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
    merges: Option<IgnoredAny>,
}

/// An entry of `added_tokens`.
#[derive(Deserialize)]
pub(super) struct Added {
    id: u32,
    content: String,
    #[serde(default, deserialize_with = "or_default")]
    single_word: bool,
    #[serde(default, deserialize_with = "or_default")]
    lstrip: bool,
    #[serde(default, deserialize_with = "or_default")]
    rstrip: bool,
    #[serde(default, deserialize_with = "or_default")]
    normalized: bool,
    #[serde(default, deserialize_with = "or_default")]
    special: bool,
}

impl Added {
    /// The id and the token of the library.
    pub(super) fn token(self) -> (u32, AddedToken) {
        let token = AddedToken::from(self.content, self.special)
            .normalized(self.normalized)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip);
        (self.id, token)
    }
}

/// Refuses merges that the library's builder would read out of bounds.
fn check_merges(bytes: &[u8], model: &Kind) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        model: Bpe,
    }
    #[derive(Deserialize)]
    struct Bpe {
        vocab: Vocab,
        merges: Vec<Merge>,
        continuing_subword_prefix: Option<String>,
    }
    if model.merges.is_none() || model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        return Ok(());
    }
    let File { model } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let prefix = model.continuing_subword_prefix.map_or(0, |text| text.len());
    let longest = model.vocab.keys().map(String::len).max().unwrap_or(0);
    let wrong = model.merges.iter().find(|Merge { left, right }| {
        !right.is_char_boundary(prefix) || left.len() + right.len() - prefix > longest
    });
    match wrong {
        None => Ok(()),
        Some(Merge { left, right }) => Err(format!(
            "merge `{left} {right}`: `{left}{right}` is not a piece"
        )),
    }
}

fn parse(bytes: &[u8]) -> Result<Coder, String> {
    let without_null = || -> Result<Coder, String> {
        let file = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut file = without_null(file);
        let added = file.get_mut("added_tokens").and_then(Value::as_array_mut);
        for token in added.into_iter().flatten().filter_map(Value::as_object_mut) {
            for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
                token.entry(flag).or_insert(Value::Bool(false));
            }
        }
        guarded(|| Coder::from_bytes(file.to_string()))
    };
    guarded(|| Coder::from_bytes(bytes))
        // The library refuses null, and added tokens without all flags.
        .or_else(|problem| without_null().map_err(|_| problem))
        .map_err(|problem| named(bytes).unwrap_or(problem))
}

/// The part of a refused file that the library does not read: its own message does not name it.
fn named(bytes: &[u8]) -> Option<String> {
    fn problem<T: DeserializeOwned>(part: &str) -> Option<String> {
        guarded(|| Ok(serde_json::from_str::<T>(part)?)).err()
    }
    type Problem = fn(&str) -> Option<String>;
    let problems = [
        ("normalizer", problem::<NormalizerWrapper> as Problem),
        ("pre_tokenizer", problem::<PreTokenizerWrapper>),
        ("post_processor", problem::<PostProcessorWrapper>),
        ("decoder", problem::<DecoderWrapper>),
        ("model", problem::<ModelWrapper>),
    ];
    let file: Value = serde_json::from_slice(bytes).ok()?;
    problems.into_iter().find_map(|(key, problem)| {
        let part = file.get(key).filter(|part| !part.is_null())?;
        let text = problem(&part.to_string())?;
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("?");
        Some(format!("`{key}` of the type `{kind}`: {text}"))
    })
}

/// The first added token whose id in the library differs from the file's.
fn misplaced<'a>(coder: &Coder, added: &'a [(u32, AddedToken)]) -> Option<&'a (u32, AddedToken)> {
    added
        .iter()
        .find(|(id, token)| coder.token_to_id(&token.content) != Some(*id))
}

/// The file with the added tokens in the model's vocabulary, which states ids.
fn with_listed_ids(bytes: &[u8], added: &[(u32, AddedToken)]) -> Option<Vec<u8>> {
    let mut file: Value = serde_json::from_slice(bytes).ok()?;
    let vocab = file.pointer_mut("/model/vocab")?.as_object_mut()?;
    for (id, token) in added {
        vocab
            .entry(token.content.as_str())
            .or_insert_with(|| json!(id));
    }
    Some(file.to_string().into_bytes())
}
