//! Tokenizers unlike LLaMA's.

use openelm_core::Tokenizer;
use openelm_testing::TempDir;
use serde_json::{Value, json};

use super::{choice, drawn, regex};

fn read(folder: &TempDir, file: &Value) -> Tokenizer {
    Tokenizer::from_file(folder.write("tokenizer.json", file.to_string())).unwrap()
}

/// Byte-level BPE, as in GPT-2: `Ġ` is a space, `Ċ` a line break.
fn byte_level() -> Value {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(|byte| !printable(byte));
    let others = others
        .zip('\u{100}'..)
        .map(|(_, letter)| letter.to_string());
    let bytes = (0..=u8::MAX)
        .filter(printable)
        .map(|byte| char::from(byte).to_string());
    let mut names: Vec<String> = bytes.chain(others).collect();
    names.extend(["Ġa", "he"].map(str::to_owned));
    let vocab: serde_json::Map<String, Value> = names
        .into_iter()
        .zip(0_u32..)
        .map(|(name, id)| (name, id.into()))
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 258, "content": "</s>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab,
            "merges": [["Ġ", "a"], ["h", "e"]]},
    })
}

/// Unigram with `▁` for a space.
fn metaspace() -> Value {
    let mut pieces = vec![json!(["</s>", 0.0])];
    for piece in ["▁", "▁the", "a", "b", "é", "▁a", "1", "t", "h", "e", "x"] {
        pieces.push(json!([piece, -1.0]));
    }
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
        "split": true});
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "</s>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": metaspace,
        "post_processor": null,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false},
    })
}

#[test]
fn texts_of_other_tokenizers_follow_the_constraint() {
    let folder = TempDir::new();
    let texts = ["a the é", "b1", "1a a"];
    for file in [byte_level(), metaspace()] {
        let tokenizer = read(&folder, &file);
        for prompt in ["", "a"] {
            let prompt = tokenizer.encode_prompt(prompt).unwrap();
            for seed in 0..30 {
                let text = drawn(&tokenizer, &choice(&texts), &prompt, seed, 100).unwrap();
                assert!(texts.contains(&text.as_str()), "{text:?}");
                let text = drawn(&tokenizer, &regex("[ab1 é]{2,9}x?"), &prompt, seed, 100);
                let length = text.unwrap().chars().count();
                assert!((2..=10).contains(&length), "{length}");
            }
        }
    }
}

#[test]
fn a_decoder_without_texts_of_tokens_is_refused() {
    let folder = TempDir::new();
    let mut file = metaspace();
    file["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let tokenizer = read(&folder, &file);
    let error = openelm_core::constraint::Constraint::new(&tokenizer, &regex("a"), &[0], 0);
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json: structured output: expected a decoder"),
        "{message}"
    );
}
