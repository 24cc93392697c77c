//! Reads a `tokenizer.json` like LLaMA's: BPE with byte fallback, spaces written as `▁`.
//!
//! The file's truncation, padding and post-processing are ignored: a prompt is never cut, and
//! this crate adds BOS. The parts are listed by name: a file with any other normalizer,
//! pre-tokenizer or decoder is read by [`library`](super::library).

use serde::Deserialize;
use tokenizers::{
    models::bpe::Vocab,
    normalizers::{self, NormalizerWrapper},
    pre_tokenizers::metaspace::Metaspace,
};

use super::{library::Added, merge::Merge, spec::TokenizerSpec};
use crate::json::or_default;

/// Reads the bytes of a `tokenizer.json` like LLaMA's.
pub(crate) fn read(bytes: &[u8]) -> Result<TokenizerSpec, String> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|error| unsupported_model(bytes).unwrap_or_else(|| error.to_string()))?;
    let model = file.model;
    check_model(&model)?;
    let added = file.added_tokens.into_iter().map(Added::token).collect();
    Ok(TokenizerSpec {
        vocab: model.vocab,
        merges: model
            .merges
            .into_iter()
            .map(|merge| (merge.left, merge.right))
            .collect(),
        unk: model.unk_token,
        fuse_unk: model.fuse_unk,
        ignore_merges: model.ignore_merges,
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
        controls: Vec::new(),
        added,
        normalizer: file.normalizer.map(Normalizer::build).transpose()?,
        pre_tokenizer: file
            .pre_tokenizer
            .map(check_metaspace)
            .transpose()?
            .map(Into::into),
        drops_first_space: drops_first_space(file.decoder)?,
    })
}

#[derive(Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<Metaspace>,
    decoder: Option<Decoder>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocab,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    fuse_unk: bool,
    #[serde(default, deserialize_with = "or_default")]
    byte_fallback: bool,
    #[serde(default, deserialize_with = "or_default")]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    Sequence { normalizers: Vec<Self> },
    Prepend { prepend: String },
    Replace { pattern: Literal, content: String },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Decoder {
    Sequence { decoders: Vec<Step> },
}

#[derive(Deserialize, PartialEq)]
#[serde(tag = "type")]
enum Step {
    Replace {
        pattern: Literal,
        content: String,
    },
    ByteFallback,
    Fuse,
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
}

#[derive(Deserialize, PartialEq)]
struct Literal {
    #[serde(rename = "String")]
    text: String,
}

/// The error for a model that is not BPE; other models fail to parse.
fn unsupported_model(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Probe {
        model: Kind,
    }
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let kind = serde_json::from_slice::<Probe>(bytes).ok()?.model.kind;
    (kind != "BPE").then(|| not_bpe(&kind))
}

fn not_bpe(kind: &str) -> String {
    format!("a `{kind}` model is not supported; expected `BPE` with byte fallback, as LLaMA's")
}

fn check_model(model: &Model) -> Result<(), String> {
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(not_bpe(kind));
    }
    if !model.byte_fallback {
        return Err("a BPE model without byte fallback is not supported".to_owned());
    }
    let affixes = [
        (
            "continuing_subword_prefix",
            &model.continuing_subword_prefix,
        ),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ];
    match affixes
        .iter()
        .find(|(_, affix)| affix.as_ref().is_some_and(|text| !text.is_empty()))
    {
        Some((key, _)) => Err(format!("`{key}` is not supported")),
        None => Ok(()),
    }
}

impl Normalizer {
    fn build(self) -> Result<NormalizerWrapper, String> {
        Ok(match self {
            Self::Sequence { normalizers } => {
                let steps = normalizers
                    .into_iter()
                    .map(Self::build)
                    .collect::<Result<_, _>>()?;
                normalizers::Sequence::new(steps).into()
            }
            Self::Prepend { prepend } if prepend == "▁" => {
                normalizers::Prepend::new(prepend).into()
            }
            Self::Replace { pattern, content } if pattern.text == " " && content == "▁" => {
                let replace = normalizers::Replace::new(pattern.text, content);
                replace.map_err(|error| error.to_string())?.into()
            }
            Self::Prepend { prepend } => {
                return Err(format!("normalizer Prepend `{prepend}`: expected `▁`"));
            }
            Self::Replace { pattern, content } => {
                let pair = format!("`{}` by `{content}`", pattern.text);
                return Err(format!(
                    "normalizer Replace {pair}: expected a space by `▁`"
                ));
            }
        })
    }
}

fn check_metaspace(metaspace: Metaspace) -> Result<Metaspace, String> {
    match metaspace.get_replacement() {
        '▁' => Ok(metaspace),
        other => Err(format!("pre-tokenizer Metaspace `{other}`: expected `▁`")),
    }
}

/// Checks that the decoder is LLaMA's, with or without its last step.
fn drops_first_space(decoder: Option<Decoder>) -> Result<bool, String> {
    let steps = decoder
        .map(|Decoder::Sequence { decoders }| decoders)
        .unwrap_or_default();
    let expected = [
        Step::Replace {
            pattern: Literal {
                text: "▁".to_owned(),
            },
            content: " ".to_owned(),
        },
        Step::ByteFallback,
        Step::Fuse,
        Step::Strip {
            content: ' ',
            start: 1,
            stop: 0,
        },
    ];
    match expected.strip_prefix(steps.as_slice()) {
        Some([]) => Ok(true),
        Some([Step::Strip { .. }]) => Ok(false),
        _ => Err(
            "the decoder is not supported; expected LLaMA's: Replace `▁` by a space, \
                  ByteFallback, Fuse, Strip one space at the start"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tokenizer::sentencepiece::model::tests::{MERGES, PIECES};

    /// The tokenizer of `sentencepiece::tests::tiny_model` as a `tokenizer.json`.
    pub(crate) fn tiny_json() -> Value {
        let specials = ["<unk>", "<s>", "</s>"].map(str::to_owned);
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let names = specials
            .into_iter()
            .chain(bytes)
            .chain(PIECES.map(str::to_owned));
        let vocab: serde_json::Map<_, _> = (0..)
            .zip(names)
            .map(|(id, name): (u32, _)| (name, id.into()))
            .collect();
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        json!({
            "version": "1.0",
            "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0,
                           "direction": "Right"},
            "padding": null,
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": true, "byte_fallback": true,
                "vocab": vocab,
                "merges": MERGES.map(|(left, right)| format!("{left} {right}"))},
        })
    }

    fn with(pointer: &str, value: Value) -> Result<TokenizerSpec, String> {
        let mut file = tiny_json();
        *file.pointer_mut(pointer).unwrap() = value;
        read(file.to_string().as_bytes())
    }

    #[test]
    fn decoder_decides_on_the_leading_space() {
        assert!(
            read(tiny_json().to_string().as_bytes())
                .unwrap()
                .drops_first_space
        );
        let mut steps = tiny_json()["decoder"]["decoders"].clone();
        steps.as_array_mut().unwrap().pop();
        assert!(!with("/decoder/decoders", steps).unwrap().drops_first_space);
    }

    #[test]
    fn rejects_other_tokenizers() {
        let cases = [
            (
                "/model",
                json!({"type": "Unigram", "vocab": [["a", -1.0]]}),
                "a `Unigram` model",
            ),
            ("/model/type", json!("WordPiece"), "a `WordPiece` model"),
            (
                "/model/byte_fallback",
                json!(false),
                "without byte fallback",
            ),
            (
                "/model/end_of_word_suffix",
                json!("</w>"),
                "`end_of_word_suffix`",
            ),
            (
                "/model/continuing_subword_prefix",
                json!("##"),
                "`continuing_subword_prefix`",
            ),
            ("/normalizer", json!({"type": "NFKC"}), "NFKC"),
            (
                "/normalizer/normalizers/0/prepend",
                json!("_"),
                "Prepend `_`",
            ),
            (
                "/normalizer/normalizers/1/content",
                json!("_"),
                "Replace ` ` by `_`",
            ),
            (
                "/normalizer/normalizers/1/pattern",
                json!({"Regex": "(a*)*"}),
                "String",
            ),
            ("/pre_tokenizer", json!({"type": "ByteLevel"}), "ByteLevel"),
            (
                "/pre_tokenizer",
                json!({"type": "Metaspace", "replacement": "_"}),
                "Metaspace `_`",
            ),
            ("/decoder", json!({"type": "ByteLevel"}), "ByteLevel"),
            ("/decoder", json!(null), "the decoder is not supported"),
            (
                "/decoder/decoders/3/stop",
                json!(1),
                "the decoder is not supported",
            ),
        ];
        for (pointer, value, expected) in cases {
            let problem = with(pointer, value).err().unwrap();
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
    }
}
