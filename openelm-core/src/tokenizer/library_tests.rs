//! Tests on tokenizers of every kind of the tokenizers library, made here.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::{AddedToken, pre_tokenizers::byte_level::ByteLevel};

use super::{json::tests::tiny_json, tokenizer::Tokenizer};
use crate::error::Result;
use openelm_testing::{Random, TempDir, encodings, random_text};

pub(super) fn read(file: &Value) -> Result<Tokenizer> {
    Tokenizer::from_bytes(Path::new("t"), file.to_string().as_bytes())
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false,
           "rstrip": false, "normalized": false, "special": true})
}

/// A file with `<s>` = 1 and `</s>` = 2.
fn file(model: Value, [normalizer, pre_tokenizer, decoder]: [Value; 3]) -> Value {
    json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": decoder, "model": model})
}

/// `names` after the three special tokens.
fn vocab(names: &[&str]) -> Value {
    let names = ["<unk>", "<s>", "</s>"].iter().chain(names);
    let ids = (0..).zip(names);
    ids.map(|(id, name): (u32, _)| ((*name).to_owned(), json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Byte-level BPE as in GPT-2 and LLaMA-3.
fn byte_level() -> Value {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(Into::into).collect();
    bytes.sort();
    let mut names: Vec<&str> = bytes.iter().map(String::as_str).collect();
    names.extend(["Ġt", "he", "Ġthe", "ðŁ"]);
    let step = |kind: &str| {
        json!({"type": kind, "add_prefix_space": false, "trim_offsets": true,
                                   "use_regex": true})
    };
    file(
        json!({"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": true, "vocab": vocab(&names),
            "merges": [["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["ð", "Ł"]]}),
        [json!(null), step("ByteLevel"), step("ByteLevel")],
    )
}

/// Unigram as in T5.
fn unigram() -> Value {
    let pieces = ["▁", "▁the", "▁cat", "the", "c", "a", "t", "s", "é", "▁▁"];
    let scores = pieces.map(|piece| json!([piece, -(20.0 - piece.len() as f64)]));
    let special = ["<unk>", "<s>", "</s>"].map(|name| json!([name, 0.0]));
    let vocab = [special.as_slice(), &scores].concat();
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                           "split": true});
    let split = json!({"type": "WhitespaceSplit"});
    let steps = json!({"type": "Sequence", "pretokenizers": [split, metaspace]});
    file(
        json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}),
        [json!({"type": "NFKC"}), steps, metaspace],
    )
}

/// WordPiece as in BERT.
fn word_piece() -> Value {
    let names = ["the", "cat", "##s", "##é", ",", "n", "##'", "do", "'", "t"];
    file(
        json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab(&names)}),
        [
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                   "strip_accents": null, "lowercase": true}),
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ],
    )
}

/// WordLevel without a decoder.
fn word_level() -> Value {
    file(
        json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": vocab(&["the", "cat", "é"])}),
        [json!(null), json!({"type": "Whitespace"}), json!(null)],
    )
}

/// BPE with a suffix of words, as in GPT.
fn suffix() -> Value {
    let names = ["c", "a", "t", "t</w>", "ca", "cat</w>", "s</w>"];
    file(
        json!({"type": "BPE", "dropout": 0.5, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": "</w>", "fuse_unk": false,
            "vocab": vocab(&names), "merges": ["c a", "ca t</w>"]}),
        [
            json!({"type": "Lowercase"}),
            json!({"type": "Whitespace"}),
            json!({"type": "BPEDecoder", "suffix": "</w>"}),
        ],
    )
}

/// Metaspace with a word as the first step, and a strip of the text's beginning.
fn stripped() -> Value {
    let mut file = tiny_json();
    file["decoder"]["decoders"][3]["start"] = json!(2);
    file
}

/// A file of each kind.
pub(super) fn all() -> [(&'static str, Value); 6] {
    [
        ("byte-level", byte_level()),
        ("unigram", unigram()),
        ("wordpiece", word_piece()),
        ("wordlevel", word_level()),
        ("suffix", suffix()),
        ("stripped", stripped()),
    ]
}

/// The text of the library, whose BPE decoder fails if there is no token with text.
fn decoded(library: &tokenizers::Tokenizer, ids: &[u32]) -> String {
    if ids.iter().all(|id| *id < 3) {
        return String::new();
    }
    library.decode(ids, true).unwrap()
}

#[test]
fn every_kind_encodes_and_decodes_as_the_library() {
    let texts = [
        "the cats",
        " the  cat",
        "the, cat",
        "do n't",
        "é the </s>cat",
        "",
        "🦙 漢",
    ];
    for (name, file) in all() {
        let tokenizer = read(&file).unwrap();
        let mut library: tokenizers::Tokenizer = file.to_string().parse().unwrap();
        library.with_truncation(None).unwrap();
        if name == "suffix" {
            let mut deterministic = file.clone();
            deterministic["model"]["dropout"] = json!(null);
            library = deterministic.to_string().parse().unwrap();
        }
        assert!(!tokenizer.is_llama(), "{name}");
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (1, 2), "{name}");
        for text in texts {
            let ids = library.encode_fast(text, false).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name}: {text}");
            assert_eq!(
                tokenizer.decode(&ids).unwrap(),
                decoded(&library, &ids),
                "{name}: {text}"
            );
            let prompt = tokenizer.encode_prompt(text).unwrap();
            assert_eq!(prompt[1..], ids, "{name}: {text}");
        }
    }
}

#[test]
fn streamed_text_is_the_text_of_the_library() {
    let mut random = Random(19);
    for (name, file) in all() {
        let tokenizer = read(&file).unwrap();
        let library: tokenizers::Tokenizer = file.to_string().parse().unwrap();
        // With byte fallback, the library gives up a whole run of bytes for one invalid byte.
        let first = if name == "stripped" { 259 } else { 0 };
        let size = tokenizer.vocab_size() - first;
        for _ in 0..3_000 {
            let ids: Vec<u32> = (0..random.below(12))
                .map(|_| (first + random.below(size)) as u32)
                .collect();
            let cut = random.below(ids.len() + 1);
            let mut stream = tokenizer.detokenizer(&[]);
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish();
            assert_eq!(text, decoded(&library, &ids), "{name}: {ids:?}");
            // A generation continues its prompt; a prompt ends with whole characters.
            let (prompt, answer) = ids.split_at(cut);
            let before = decoded(&library, prompt);
            if !before.ends_with('\u{fffd}') {
                let mut stream = tokenizer.detokenizer(prompt);
                let mut after = String::new();
                for &id in answer {
                    after += &stream.push(id).unwrap();
                }
                after += &stream.finish();
                assert_eq!(before + &after, text, "{name}: {prompt:?} {answer:?}");
            }
        }
    }
}

#[test]
fn bytes_of_a_character_are_held_back() {
    let tokenizer = read(&byte_level()).unwrap();
    let ids = tokenizer.encode(" the🦙é!").unwrap();
    let mut stream = tokenizer.detokenizer(&[]);
    let parts: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts, [" the", "", "", "🦙", "", "é", "!"]);
    let mut random = Random(5);
    for _ in 0..500 {
        let text = random_text(&mut random);
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn byte_level_continuation_joins_the_texts() {
    for prefix_space in [false, true] {
        let mut file = byte_level();
        file["pre_tokenizer"]["add_prefix_space"] = json!(prefix_space);
        let tokenizer = read(&file).unwrap();
        let context = tokenizer.encode_prompt("the").unwrap();
        for text in ["the", " the", "</s>é"] {
            let more = tokenizer.encode_continuation(&context, text).unwrap();
            let whole = tokenizer.decode(&[context.clone(), more].concat()).unwrap();
            let before = tokenizer.decode(&context).unwrap();
            assert_eq!(whole, before + &text.replace("</s>", ""));
        }
    }
    // Each word has its own space.
    let tokenizer = read(&unigram()).unwrap();
    let context = tokenizer.encode_prompt("the").unwrap();
    let more = tokenizer.encode_continuation(&context, "cat the").unwrap();
    assert_eq!(more, tokenizer.encode("cat the").unwrap());
}

#[test]
fn files_beside_the_tokenizer_name_bos_and_eos() {
    let folder = TempDir::new();
    let mut file = byte_level();
    file["added_tokens"] = [(1, "<|begin|>"), (2, "<|end|>"), (300, "<|im_end|>")]
        .map(|(id, content)| special(id, content))
        .to_vec()
        .into();
    file["added_tokens"][1]["special"] = json!(false);
    let names = file["model"]["vocab"].as_object_mut().unwrap();
    names.remove("<s>");
    names.remove("</s>");
    let path = folder.write("tokenizer.json", file.to_string());
    let ids = |expected: (u32, u32), reason: &str| {
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        assert_eq!(
            (tokenizer.bos_id(), tokenizer.eos_id()),
            expected,
            "{reason}"
        );
        assert_eq!(tokenizer.decode(&[expected.0, expected.1]).unwrap(), "");
    };
    let problem = || Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(problem().contains("no EOS"), "{}", problem());
    folder.write(
        "config.json",
        r#"{"bos_token_id": 1, "eos_token_id": [300, 2]}"#,
    );
    ids((1, 300), "config.json");
    folder.write("generation_config.json", r#"{"eos_token_id": 1}"#);
    ids((1, 1), "generation_config.json");
    folder.write(
        "special_tokens_map.json",
        r#"{"eos_token": {"content": "<|end|>"}}"#,
    );
    ids((1, 2), "special_tokens_map.json");
    folder.write(
        "tokenizer_config.json",
        r#"{"bos_token": null, "eos_token": "<|im_end|>"}"#,
    );
    ids((1, 300), "tokenizer_config.json");
    folder.write("tokenizer_config.json", r#"{"eos_token": "<|absent|>"}"#);
    ids((1, 2), "an absent name");
    folder.write("tokenizer_config.json", "[");
    assert!(problem().contains("tokenizer_config.json"), "{}", problem());
}

#[test]
fn special_token_of_the_settings_is_matched_in_text() {
    let folder = TempDir::new();
    let mut file = tiny_json();
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens.push(json!({"id": 273, "content": "<|im_end|>", "special": false}));
    let path = folder.write("tokenizer.json", file.to_string());
    folder.write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#);
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert!(tokenizer.is_llama());
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (1, 273));
    assert_eq!(tokenizer.encode("the<|im_end|>").unwrap(), [261, 273]);
    assert_eq!(tokenizer.decode(&[261, 273]).unwrap(), "the");
}

#[test]
fn added_tokens_have_the_ids_of_the_file() {
    for (name, mut file) in all() {
        let mut pad = special(400, "<pad>");
        pad["rstrip"] = json!(true);
        file["added_tokens"].as_array_mut().unwrap().push(pad);
        match read(&file) {
            Ok(tokenizer) => {
                assert_eq!(tokenizer.encode("<pad>").unwrap(), [400], "{name}");
                assert_eq!(tokenizer.vocab_size(), 401);
                assert_eq!(tokenizer.piece(399), None);
            }
            // A Unigram vocabulary is a list.
            Err(error) => {
                assert_eq!(name, "unigram");
                let expected = "t: added token `<pad>`: id 400 expected";
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}

#[test]
fn unreadable_part_is_named() {
    for (key, value) in [
        ("normalizer", json!({"type": "Unheard"})),
        ("pre_tokenizer", json!({"type": "Unheard"})),
        ("decoder", json!({"type": "Unheard"})),
        ("model", json!({"type": "Unheard", "vocab": {}})),
    ] {
        let mut file = byte_level();
        file[key] = value;
        let message = read(&file).unwrap_err().to_string();
        let expected = format!("t: `{key}` of the type `Unheard`: ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn deeply_nested_parts_are_refused() {
    for part in ["decoder", "normalizer", "pre_tokenizer", "model", "other"] {
        for (open, close) in [("[", "]"), (r#"{"type":"#, "}")] {
            let mut file = unigram();
            file[part] = json!("HERE");
            let nested = format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
            let text = file.to_string().replace("\"HERE\"", &nested);
            let problem = Tokenizer::from_bytes(Path::new("t"), text.as_bytes());
            let problem = problem.unwrap_err().to_string();
            assert!(problem.contains("at most 127 nested"), "{part}: {problem}");
        }
    }
}

#[test]
fn malformed_merges_are_refused() {
    let mut file = byte_level();
    file["model"]["continuing_subword_prefix"] = json!("##");
    let message = read(&file).unwrap_err().to_string();
    assert!(message.contains("is not a piece"), "{message}");
}

#[test]
fn flags_of_added_tokens_are_applied() {
    let mut file = tiny_json();
    file["added_tokens"][2]["rstrip"] = json!(true);
    let tokenizer = read(&file).unwrap();
    assert!(tokenizer.is_llama());
    let library: tokenizers::Tokenizer = file.to_string().parse().unwrap();
    assert!(
        library
            .get_added_tokens_decoder()
            .values()
            .any(|t: &AddedToken| t.rstrip)
    );
    let mut library = library;
    library.with_truncation(None).unwrap();
    let text = "the</s>   cat";
    let expected = library.encode_fast(text, false).unwrap();
    assert_eq!(tokenizer.encode(text).unwrap(), expected.get_ids());
}

#[test]
fn null_is_an_absent_value() {
    for (name, file, text) in [
        ("llama", tiny_json(), "the cat</s>"),
        ("bytes", byte_level(), "é 🦙"),
    ] {
        let expected = read(&file).unwrap().encode(text).unwrap();
        for pointer in ["/added_tokens/0", "/model"] {
            let keys = [
                "single_word",
                "lstrip",
                "rstrip",
                "fuse_unk",
                "ignore_merges",
                "dropout",
            ];
            for key in keys {
                let mut file = file.clone();
                file.pointer_mut(pointer).unwrap()[key] = Value::Null;
                let found = read(&file).unwrap().encode(text).unwrap();
                assert_eq!(found, expected, "{name}: {pointer}/{key}");
            }
        }
    }
    let mut file = tiny_json();
    let without = {
        let mut file = file.clone();
        file.as_object_mut().unwrap().remove("added_tokens");
        read(&file).unwrap().encode("a</s>").unwrap()
    };
    file["added_tokens"] = Value::Null;
    assert_eq!(read(&file).unwrap().encode("a</s>").unwrap(), without);
}

#[test]
fn files_beside_the_tokenizer_have_any_encoding() {
    let folder = TempDir::new();
    let mut file = byte_level();
    file["added_tokens"] = json!([]);
    let piece = "a";
    for (name, bytes) in encodings(&json!({"eos_token": piece, "bos_token": null}).to_string()) {
        let path = folder.write("tokenizer.json", file.to_string());
        folder.write("tokenizer_config.json", bytes);
        let tokenizer = Tokenizer::from_file(path).unwrap();
        assert_eq!(tokenizer.piece(tokenizer.eos_id()), Some(piece), "{name}");
    }
}
