//! The tokenizer in the metadata of a GGUF file, in llama.cpp's form of a SentencePiece model.
//!
//! llama.cpp's `llama` tokenizer merges any two neighbours whose concatenation is a token, the
//! highest score first. A `tokenizer.json` has no scores but an ordered list of merges: a token's
//! score here is the negated position of the first merge that makes it, counted in tokens. LLaMA's
//! list has every pair whose concatenation is a token, so llama.cpp splits text in the same way. A
//! list that lacks some pairs, such as a trained one, may split some text differently;
//! [`Vocabulary::unlisted_merges`] counts these pairs. A list that does not follow from the scores
//! is stored in the file for the conversion back to a `tokenizer.json`; llama.cpp ignores it.

use std::collections::{HashMap, HashSet};

use crate::{
    error::{Error, Result},
    formats::gguf::{GgufReader, Value},
    tokenizer::{Tokenizer, TokenizerSpec},
};

/// Largest number of merges, a limit for hostile files; LLaMA has 61,249.
const MAX_MERGES: usize = 1 << 21;
/// Longest token that merges may form, in bytes; LLaMA's longest has 48.
const MAX_TOKEN_BYTES: usize = 512;

/// The tokens of a model and their merges.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// The tokens by id.
    pub tokens: Vec<Token>,
    /// Id of the token that starts a text.
    pub bos_id: u32,
    /// Id of the token that ends a text.
    pub eos_id: u32,
    /// Id of the unknown token.
    pub unk_id: Option<u32>,
    /// True if a space is prepended to a text.
    pub adds_space: bool,
    /// The merges in order, if they are stated and do not follow from the scores.
    pub merges: Option<Vec<(String, String)>>,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The text, a space as `▁`, a byte as `<0x0A>`.
    pub text: String,
    /// Priority of the merge: the highest score comes first.
    pub score: f32,
    /// The token's kind.
    pub kind: TokenKind,
}

/// The kind of a [`Token`]; the discriminant is the number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum TokenKind {
    /// Text.
    Normal = 1,
    /// The token for text that no other token can represent.
    Unknown = 2,
    /// No text, such as `<s>`.
    Control = 3,
    /// Text that is never split.
    UserDefined = 4,
    /// A row of the embedding without a token.
    Unused = 5,
    /// A byte.
    Byte = 6,
}

impl TokenKind {
    const ALL: [Self; 6] = [
        Self::Normal,
        Self::Unknown,
        Self::Control,
        Self::UserDefined,
        Self::Unused,
        Self::Byte,
    ];
}

impl Vocabulary {
    /// The vocabulary of a tokenizer, read from its file again.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the tokenizer is not like LLaMA's, or has added tokens that match
    /// more than their text.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let refused = |problem: String| {
            let problem = format!("cannot be written to GGUF: {problem}");
            Error::tokenizer(tokenizer.path(), problem)
        };
        if !tokenizer.is_llama() {
            return Err(refused(
                "expected BPE with byte fallback and `▁` for a space, as LLaMA's; found another \
                 kind of tokenizer.json"
                    .into(),
            ));
        }
        let contents = Tokenizer::contents(tokenizer.path())?;
        let mut added = contents.added.iter().map(|(_, token)| token);
        if let Some(token) = added.find(|token| token.single_word || token.lstrip || token.rstrip) {
            return Err(refused(format!(
                "added token `{}` has `single_word`, `lstrip` or `rstrip`",
                token.content
            )));
        }
        let kinds = kinds(&contents);
        let order = order(&contents.merges);
        let mut last = order.len();
        let mut tokens = Vec::with_capacity(tokenizer.vocab_size());
        for id in 0..tokenizer.vocab_size() as u32 {
            let Some(text) = tokenizer.piece(id) else {
                tokens.push(unused(id as usize));
                continue;
            };
            let kind = kinds.get(text).copied().unwrap_or(if byte(text) {
                TokenKind::Byte
            } else {
                TokenKind::Normal
            });
            let score = match order.get(text) {
                _ if kind != TokenKind::Normal => 0.0,
                Some(&place) => -(place as f32),
                None => {
                    last += 1;
                    -((last - 1) as f32)
                }
            };
            let text = text.to_owned();
            tokens.push(Token { text, score, kind });
        }
        // The ids show whether a space is prepended, for every way of stating it in the file.
        let first = tokenizer
            .encode("a")?
            .first()
            .and_then(|&id| tokenizer.piece(id));
        let mut vocabulary = Self {
            tokens,
            bos_id: tokenizer.bos_id(),
            eos_id: tokenizer.eos_id(),
            unk_id: contents
                .unk
                .as_deref()
                .and_then(|unk| tokenizer.piece_id(unk)),
            adds_space: first.is_some_and(|piece| piece.starts_with('▁')),
            merges: None,
        };
        if vocabulary.merges_by_score().map_err(invalid)? != contents.merges {
            vocabulary.merges = Some(contents.merges);
        }
        Ok(vocabulary)
    }

    /// The vocabulary of a file, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is malformed or not a SentencePiece vocabulary.
    pub fn from_gguf(reader: &GgufReader) -> Result<Option<Self>> {
        read(reader).map_err(|problem| Error::tokenizer(reader.path(), problem))
    }

    /// Number of pairs that llama.cpp merges and the list of merges does not have: 0 for LLaMA.
    /// Otherwise llama.cpp may split a text into other tokens than the tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if a token is empty or too long, or there are too many merges.
    pub fn unlisted_merges(&self) -> Result<usize> {
        let Some(listed) = &self.merges else {
            return Ok(0);
        };
        let listed: HashSet<&(String, String)> = listed.iter().collect();
        let all = self.merges_by_score().map_err(invalid)?;
        Ok(all.iter().filter(|merge| !listed.contains(merge)).count())
    }

    /// The pairs of tokens whose concatenation is a token, by descending score, then by their ids.
    pub(crate) fn merges_by_score(&self) -> Result<Vec<(String, String)>, String> {
        let normal = self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| token.kind == TokenKind::Normal);
        let ids: HashMap<&str, usize> = normal
            .clone()
            .map(|(id, token)| (token.text.as_str(), id))
            .collect();
        let mut pairs = Vec::new();
        for (id, Token { text, score, .. }) in normal {
            if !(1..=MAX_TOKEN_BYTES).contains(&text.len()) {
                return Err(format!(
                    "token {id} has {} bytes; expected 1 to {MAX_TOKEN_BYTES}",
                    text.len()
                ));
            }
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) else {
                    continue;
                };
                if pairs.len() == MAX_MERGES {
                    return Err(format!("more than {MAX_MERGES} merges are not supported"));
                }
                pairs.push((*score, left_id, right_id, left, right));
            }
        }
        pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        Ok(pairs
            .into_iter()
            .map(|(.., left, right)| (left.to_owned(), right.to_owned()))
            .collect())
    }

    /// The keys of a file with `rows` embedding rows.
    pub(crate) fn metadata(&self, rows: usize) -> Result<Vec<(String, Value)>> {
        // llama.cpp's converter, too, leaves out added tokens that the model does not have.
        let (kept, rest) = self.tokens.split_at(rows.min(self.tokens.len()));
        let is_added = |token: &Token| token.kind != TokenKind::Normal;
        if !rest.iter().all(is_added) {
            return Err(Error::tokenizer(
                "tokenizer",
                format!(
                    "the tokenizer has {} ids; the model's vocabulary has {rows}",
                    self.tokens.len()
                ),
            ));
        }
        let filling: Vec<Token> = (kept.len()..rows).map(unused).collect();
        let tokens = || kept.iter().chain(&filling);
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut put = |key: &str, value| entries.push((format!("tokenizer.ggml.{key}"), value));
        put("model", "llama".into());
        put("pre", "default".into());
        put(
            "tokens",
            Value::strings(tokens().map(|token| token.text.as_str())),
        );
        put("scores", Value::floats(tokens().map(|token| token.score)));
        put(
            "token_type",
            Value::ints(tokens().map(|token| token.kind as i32)),
        );
        if let Some(merges) = &self.merges {
            let merges = merges.iter().map(|(left, right)| format!("{left} {right}"));
            put("merges", Value::strings(merges));
        }
        put("bos_token_id", self.bos_id.into());
        put("eos_token_id", self.eos_id.into());
        if let Some(unk_id) = self.unk_id {
            put("unknown_token_id", unk_id.into());
        }
        put("add_bos_token", true.into());
        put("add_eos_token", false.into());
        put("add_space_prefix", self.adds_space.into());
        Ok(entries)
    }
}

/// An embedding row without a token; llama.cpp requires distinct names.
fn unused(id: usize) -> Token {
    Token {
        text: format!("[PAD{id}]"),
        score: -1e4,
        kind: TokenKind::Unused,
    }
}

/// True if a piece is a byte.
pub(crate) fn byte(text: &str) -> bool {
    let digits = text
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| {
        digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// The kinds of the pieces that the file lists explicitly.
fn kinds(contents: &TokenizerSpec) -> HashMap<&str, TokenKind> {
    let mut kinds = HashMap::new();
    for (_, token) in &contents.added {
        let kind = if token.special {
            TokenKind::Control
        } else {
            TokenKind::UserDefined
        };
        kinds.insert(token.content.as_str(), kind);
    }
    for name in contents
        .controls
        .iter()
        .chain([&contents.bos, &contents.eos])
    {
        kinds.insert(name.as_str(), TokenKind::Control);
    }
    if let Some(unk) = &contents.unk {
        kinds.insert(unk.as_str(), TokenKind::Unknown);
    }
    kinds
}

/// The position of every merged token, by its first merge.
fn order(merges: &[(String, String)]) -> HashMap<String, usize> {
    let mut order = HashMap::new();
    for (left, right) in merges {
        let next = order.len();
        order.entry(format!("{left}{right}")).or_insert(next);
    }
    order
}

/// An error of a vocabulary that was not read from a file.
fn invalid(problem: String) -> Error {
    Error::tokenizer("tokenizer", problem)
}

fn read(reader: &GgufReader) -> Result<Option<Vocabulary>, String> {
    let metadata = reader.metadata();
    let get = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}"));
    match get("model").and_then(Value::as_str) {
        None | Some("no_vocab" | "none") => return Ok(None),
        Some("llama") => {}
        Some(other) => {
            return Err(format!(
                "tokenizer.ggml.model: expected \"llama\", found {other:?}"
            ));
        }
    }
    let array = |key: &str| match get(key).map(|value| value.as_array().ok_or(value)) {
        None => Ok(None),
        Some(Ok(values)) => Ok(Some(values)),
        Some(Err(value)) => Err(format!(
            "tokenizer.ggml.{key}: expected an array, found {value}"
        )),
    };
    let texts = array("tokens")?.ok_or("tokenizer.ggml.tokens is missing")?;
    let (scores, kinds) = (array("scores")?, array("token_type")?);
    for (key, values) in [("scores", scores), ("token_type", kinds)] {
        if let Some(values) = values.filter(|values| values.len() != texts.len()) {
            return Err(format!(
                "tokenizer.ggml.{key}: {} values for {} tokens",
                values.len(),
                texts.len()
            ));
        }
    }
    let mut tokens = Vec::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        let text = text
            .as_str()
            .ok_or("tokenizer.ggml.tokens: expected texts")?;
        let score = match scores.and_then(|scores| scores.get(id)) {
            None => 0.0,
            Some(Value::Float32(score)) if score.is_finite() => *score,
            Some(other) => return Err(format!("token {id} `{text}` has the score {other}")),
        };
        let kind = match kinds.and_then(|kinds| kinds.get(id)) {
            None => TokenKind::Normal,
            Some(value) => TokenKind::ALL
                .into_iter()
                .find(|kind| value.as_usize() == Some(*kind as usize))
                .ok_or_else(|| format!("token {id} `{text}` is of the unknown kind {value}"))?,
        };
        tokens.push(Token {
            text: text.into(),
            score,
            kind,
        });
    }
    let id = |key: &str| match get(key) {
        None => Ok(None),
        Some(value) => match value.as_usize().filter(|id| *id < tokens.len()) {
            Some(id) => Ok(Some(id as u32)),
            None => Err(format!("tokenizer.ggml.{key}: {value} is not a token id")),
        },
    };
    let unknown = tokens
        .iter()
        .position(|token| token.kind == TokenKind::Unknown);
    Ok(Some(Vocabulary {
        bos_id: id("bos_token_id")?.unwrap_or(1),
        eos_id: id("eos_token_id")?.unwrap_or(2),
        unk_id: id("unknown_token_id")?.or(unknown.map(|id| id as u32)),
        adds_space: get("add_space_prefix")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        merges: array("merges")?.map(read_merges).transpose()?,
        tokens,
    }))
}

fn read_merges(merges: &[Value]) -> Result<Vec<(String, String)>, String> {
    let merge = |value: &Value| match value.as_str().and_then(|text| text.split_once(' ')) {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(format!(
            "tokenizer.ggml.merges: expected two pieces, found {value}"
        )),
    };
    merges.iter().map(merge).collect()
}
