//! Encoding of a long text in parts, with the ids of the whole text: the library needs about 150
//! times the size of a text.
//!
//! A part ends between two tokens `t` and `u`, if BPE of the text of both gives `t` and `u` again.
//! BPE always merges the leftmost pair of the lowest rank. If a merge in the whole text crossed the
//! place between `t` and `u`, the merges inside the text of both before it, and the crossing merge
//! itself, would be the same without the text around them.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, NormalizerWrapper, OffsetType,
    PreTokenizerWrapper,
    models::{ModelWrapper, bpe::BPE},
};

use super::{
    sections::{Prefix, tokenized},
    spec::Coder,
};

/// Size of a part in bytes; shorter texts are encoded as a whole.
const PART: usize = 1 << 16;
/// Largest text, or part of a text, that is encoded as a whole, in bytes.
const WHOLE: usize = 1 << 22;
/// Bytes between the end of a part and the tokens that are tried as its last.
const MARGIN: usize = 512;
/// Number of tokens that are tried as the last of a part.
const TRIES: usize = 8;

/// The properties of a tokenizer for which the ids of parts are those of the whole text: BPE like
/// LLaMA's.
pub(super) struct LongText {
    /// The texts that become an added token, also as the normalizer writes them.
    added: Vec<String>,
    added_ids: HashSet<u32>,
    /// Bytes of the longest of them.
    reach: usize,
}

/// The tokens of a part of a text.
struct Part {
    end: usize,
    ids: Vec<u32>,
    /// Bytes of the text that each token comes from.
    spans: Vec<(usize, usize)>,
}

impl LongText {
    /// `None` if the ids of parts may differ.
    pub(super) fn new(coder: &Coder) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = coder.get_model() else {
            return None;
        };
        let normalizer = coder.get_normalizer();
        let normalizer_is_local = normalizer.is_none_or(is_local);
        let pre_tokenizer_is_local = match coder.get_pre_tokenizer() {
            None => true,
            Some(PreTokenizerWrapper::Metaspace(metaspace)) => metaspace.get_replacement() == '▁',
            Some(_) => false,
        };
        let vocabulary = coder.get_added_vocabulary().get_added_tokens_decoder();
        let is_plain = |token: &AddedToken| !token.single_word && !token.lstrip && !token.rstrip;
        if !merges_only(bpe)
            || !normalizer_is_local
            || !pre_tokenizer_is_local
            || !vocabulary.values().all(is_plain)
        {
            return None;
        }
        let mut added = Vec::new();
        for token in vocabulary.values() {
            let mut normalized = NormalizedString::from(token.content.as_str());
            if let Some(normalizer) = normalizer {
                normalizer.normalize(&mut normalized).ok()?;
            }
            let normalized = written(normalized.get());
            added.push(written(&token.content));
            added.push(normalized.trim_start_matches('▁').to_owned());
            added.push(normalized);
        }
        added.retain(|text| !text.is_empty());
        added.sort_unstable();
        added.dedup();
        Some(Self {
            reach: added.iter().map(String::len).max().unwrap_or(0),
            added,
            added_ids: vocabulary.keys().copied().collect(),
        })
    }

    /// The ids of `text`, in parts of `least` bytes, or more if a part cannot end there.
    ///
    /// # Errors
    /// The library's error, or a text without a place where a part can end.
    fn in_parts(
        &self,
        coder: &Coder,
        text: &str,
        prefix: Prefix,
        least: usize,
    ) -> tokenizers::Result<Vec<u32>> {
        let mut ids = Vec::new();
        // The last token of the parts before, as ids and the start of its text.
        let mut last: Option<(Vec<u32>, usize)> = None;
        let (mut start, mut size, mut own) = (0, least, prefix);
        let mut part = Part::new(coder, text, start, size, own)?;
        while part.end < text.len() {
            let following = match prefix {
                Prefix::All | Prefix::AfterToken => Prefix::Later,
                other => other,
            };
            let mut found = None;
            for count in self.ends(&part, text) {
                let end = part.spans.get(count).map_or(part.end, |span| span.0);
                let next = Part::new(coder, text, end, least, following)?;
                let group = part.group_before(count);
                if next.follows(coder, text, &group)? {
                    found = Some((count, end, next, group));
                    break;
                }
            }
            if let Some((count, end, next, group)) = found {
                ids.extend(part.ids.iter().take(count));
                last = Some(group);
                (part, start, size, own) = (next, end, least, following);
                continue;
            }
            size *= 2;
            if size > WHOLE {
                return Err(no_end());
            }
            part = Part::new(coder, text, start, size, own)?;
            if let Some(group) = &last
                && !part.follows(coder, text, group)?
            {
                return Err(no_end());
            }
        }
        ids.extend(part.ids);
        Ok(ids)
    }

    /// Numbers of tokens after which `part` may end, the highest first.
    fn ends(&self, part: &Part, text: &str) -> Vec<usize> {
        let limit = part.end.saturating_sub(MARGIN);
        let first = part.spans.first().map_or(0, |span| span.1);
        let is_text = |place: usize| {
            part.ids
                .get(place)
                .is_some_and(|id| !self.added_ids.contains(id))
        };
        let ends = (1..part.ids.len()).rev().filter(|&count| {
            let (Some(before), Some(after)) = (part.spans.get(count - 1), part.spans.get(count))
            else {
                return false;
            };
            before.1 <= limit
                && before.0 >= first
                && before.0 < before.1
                && before.1 == after.0
                && is_text(count - 1)
                && is_text(count)
                && !self.is_inside_added(text, after.0)
        });
        ends.take(TRIES).collect()
    }

    /// True if an added token may extend over the place `at`.
    fn is_inside_added(&self, text: &str, at: usize) -> bool {
        let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else {
            return true;
        };
        let start = before.floor_char_boundary(at.saturating_sub(self.reach));
        let end = after.floor_char_boundary(self.reach);
        let before = written(before.get(start..).unwrap_or_default());
        let after = written(after.get(..end).unwrap_or_default());
        self.added.iter().any(|token| {
            let mut places = token.char_indices().skip(1);
            places.any(|(place, _)| {
                let (left, right) = token.split_at(place);
                before.ends_with(left) && after.starts_with(right)
            })
        })
    }
}

impl Part {
    /// The tokens of at most `size` bytes of `text` from `start` on.
    fn new(
        coder: &Coder,
        text: &str,
        start: usize,
        size: usize,
        prefix: Prefix,
    ) -> tokenizers::Result<Self> {
        let end = text.floor_char_boundary(start.saturating_add(size));
        let splits = tokenized(
            coder,
            text.get(start..end).unwrap_or_default(),
            prefix,
            start == 0,
        )?;
        let encoding = splits.into_encoding(None, 0, OffsetType::Byte)?;
        let spans = encoding.get_offsets().iter();
        Ok(Self {
            end,
            ids: encoding.get_ids().to_vec(),
            spans: spans
                .map(|&(from, to)| (start + from, start + to))
                .collect(),
        })
    }

    /// The token before the token `count`, with all tokens of the same character, and the start of
    /// its text.
    fn group_before(&self, count: usize) -> (Vec<u32>, usize) {
        let start = self
            .spans
            .get(count.wrapping_sub(1))
            .map_or(0, |span| span.0);
        let spans = self.spans.iter().take(count);
        let first = spans.take_while(|span| span.0 < start).count();
        (
            self.ids.get(first..count).unwrap_or_default().to_vec(),
            start,
        )
    }

    /// True if BPE of the last token before this part and the first token of it gives both.
    fn follows(
        &self,
        coder: &Coder,
        text: &str,
        (ids, start): &(Vec<u32>, usize),
    ) -> tokenizers::Result<bool> {
        let Some(first) = self.spans.first() else {
            return Ok(false);
        };
        let count = self.spans.iter().take_while(|span| *span == first).count();
        let both = text.get(*start..first.1).unwrap_or_default();
        let splits = tokenized(coder, both, Prefix::None, false)?;
        let found = splits.into_encoding(None, 0, OffsetType::None)?;
        let expected = ids.iter().chain(self.ids.iter().take(count));
        Ok(found.get_ids().iter().eq(expected))
    }
}

fn no_end() -> tokenizers::Error {
    let problem = format!(
        "the text cannot be encoded in parts: expected at most {WHOLE} bytes without a place to \
         divide it, found more"
    );
    problem.into()
}

/// The ids of `text`.
///
/// # Errors
/// The library's error, or a text that is too long to be encoded.
pub(super) fn encode(
    coder: &Coder,
    long: Option<&LongText>,
    text: &str,
    prefix: Prefix,
) -> tokenizers::Result<Vec<u32>> {
    match long {
        Some(long) if text.len() > PART => return long.in_parts(coder, text, prefix, PART),
        None if text.len() > WHOLE => {
            return Err(format!(
                "this kind of tokenizer encodes a text as a whole: expected at most {WHOLE} bytes, \
                 found {}",
                text.len()
            )
            .into());
        }
        _ => {}
    }
    let encoding = if prefix == Prefix::All {
        coder.encode_fast(text, false)?
    } else {
        tokenized(coder, text, prefix, true)?.into_encoding(None, 0, OffsetType::None)?
    };
    Ok(encoding.get_ids().to_vec())
}

/// `text` with spaces as the normalizer writes them.
fn written(text: &str) -> String {
    text.replace(' ', "▁")
}

/// True if the tokens of a model depend on nothing but merges of characters and bytes.
fn merges_only(bpe: &BPE) -> bool {
    let is_empty = |affix: &Option<String>| affix.as_ref().is_none_or(String::is_empty);
    let has = |byte: u8| bpe.token_to_id(&format!("<0x{byte:02X}>")).is_some();
    bpe.byte_fallback
        && (0..=u8::MAX).all(has)
        && bpe.dropout.is_none()
        && !bpe.ignore_merges
        && is_empty(&bpe.continuing_subword_prefix)
        && is_empty(&bpe.end_of_word_suffix)
}

/// True if a normalizer only prepends `▁` and writes spaces as `▁`.
fn is_local(normalizer: &NormalizerWrapper) -> bool {
    fn is_known(step: &Value) -> bool {
        let steps = step.get("normalizers").and_then(Value::as_array);
        match step.get("type").and_then(Value::as_str) {
            Some("Sequence") => steps.is_some_and(|steps| steps.iter().all(is_known)),
            Some("Prepend") => step.get("prepend") == Some(&json!("▁")),
            Some("Replace") => {
                step.get("pattern") == Some(&json!({"String": " "}))
                    && step.get("content") == Some(&json!("▁"))
            }
            _ => false,
        }
    }
    serde_json::to_value(normalizer).is_ok_and(|normalizer| is_known(&normalizer))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::tokenizer::{
        Tokenizer, json::tests::tiny_json, sentencepiece::model::tests::tiny_model,
    };
    use openelm_testing::{Random, random_text, tales};

    fn from_json(file: &Value) -> Tokenizer {
        Tokenizer::from_bytes(Path::new("tokenizer.json"), file.to_string().as_bytes()).unwrap()
    }

    /// Tokenizers whose parts have the ids of the whole text.
    fn supported() -> Vec<Tokenizer> {
        let metaspace = |scheme: &str, split: bool| {
            let mut file = tiny_json();
            file["normalizer"] = Value::Null;
            file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
                "prepend_scheme": scheme, "split": split});
            from_json(&file)
        };
        let mut normalized = tiny_json();
        for token in normalized["added_tokens"].as_array_mut().unwrap() {
            token["normalized"] = json!(true);
        }
        let mut repeated = tiny_json();
        let vocab = repeated["model"]["vocab"].as_object_mut().unwrap();
        for (piece, id) in [
            ("aa", 273),
            ("aaa", 274),
            ("aaaa", 275),
            ("b", 276),
            ("ab", 277),
        ] {
            vocab.insert(piece.into(), json!(id));
        }
        repeated["model"]["merges"] = json!(["a a", "aa a", "aa aa", "a b"]);
        vec![
            Tokenizer::from_file(tales().join("tokenizer.json")).unwrap(),
            from_json(&tiny_json()),
            Tokenizer::from_bytes(Path::new("tokenizer.model"), &tiny_model()).unwrap(),
            metaspace("first", false),
            metaspace("always", true),
            from_json(&normalized),
            from_json(&repeated),
        ]
    }

    /// Long texts of several kinds.
    fn texts() -> Vec<(&'static str, String)> {
        let mut random = Random(17);
        let mut letters = Random(5);
        let mut letter = || char::from(b'a' + (letters.below(4)) as u8);
        let many = |part: &str| part.repeat(8_000 / part.len() + 1);
        vec![
            (
                "random",
                (0..700).map(|_| random_text(&mut random)).collect(),
            ),
            (
                "prose",
                many("Once upon a time, there was a little girl. She said: \"The cat\" "),
            ),
            ("no spaces", (0..8_000).map(|_| letter()).collect()),
            ("one letter", "a".repeat(8_001)),
            ("spaces", " ".repeat(8_001)),
            ("marks", many("▁ ▁▁")),
            ("Chinese", many("从前有一个小女孩，她住在森林里。")),
            ("emoji", many("🦙👩‍👩‍👧é")),
            (
                "added tokens",
                many("the cat</s> a<s>the</s></s>  <unk>a</ s>"),
            ),
            ("lines", many("the\n\n\tcat\r\n")),
        ]
    }

    fn whole(tokenizer: &Tokenizer, text: &str, prefix: Prefix) -> Vec<u32> {
        let splits = tokenized(tokenizer.coder(), text, prefix, true).unwrap();
        let encoding = splits.into_encoding(None, 0, OffsetType::None).unwrap();
        encoding.get_ids().to_vec()
    }

    #[test]
    fn parts_have_the_ids_of_the_whole_text() {
        for (number, tokenizer) in supported().into_iter().enumerate() {
            for tokenizer in [tokenizer.literal(), tokenizer] {
                for (name, text) in texts() {
                    let long = LongText::new(tokenizer.coder()).unwrap();
                    for prefix in [Prefix::All, Prefix::None] {
                        let expected = whole(&tokenizer, &text, prefix);
                        let found = long
                            .in_parts(tokenizer.coder(), &text, prefix, 2_000)
                            .unwrap();
                        assert!(found == expected, "{number}: {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn long_text_has_the_ids_of_the_library() {
        let tokenizer = Tokenizer::from_file(tales().join("tokenizer.json")).unwrap();
        let text = "Once upon a time 从前 aaaaaaaa".repeat(6_000);
        let library = tokenizer.coder().encode_fast(text.as_str(), false).unwrap();
        assert!(tokenizer.encode(&text).unwrap() == library.get_ids());
    }

    #[test]
    fn other_tokenizers_have_a_limit() {
        let mut file = tiny_json();
        file["model"]["ignore_merges"] = json!(true);
        let tokenizer = from_json(&file);
        let text = "the cat ".repeat(WHOLE / 8);
        assert!(LongText::new(tokenizer.coder()).is_none());
        assert!(tokenizer.encode(&text[..100_000]).is_ok());
        let problem = tokenizer.encode(&(text + "a")).unwrap_err().to_string();
        let expected = "tokenizer.json: this kind of tokenizer encodes a text as a whole: expected \
                        at most 4194304 bytes, found 4194305";
        assert_eq!(problem, expected);
    }
}
