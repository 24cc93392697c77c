//! A tokenizer in a GGUF file.

use openelm_core::Tokenizer;
use openelm_core::{Config, config::LayerWiseConfig};
use openelm_core::{
    convert::FileType,
    internal::{GgufReader, TensorType, Token, TokenKind, Value, Vocabulary, metadata},
};
use openelm_testing::{Random, TempFile};

use crate::files::{model_file, small, spec, tales, written};

#[test]
fn tokenizer_round_trips() {
    let tokenizer = tales();
    let vocabulary = Vocabulary::of(&tokenizer).unwrap();
    assert_eq!(vocabulary.tokens.len(), 2048);
    let token = |id: usize| {
        let token = &vocabulary.tokens[id];
        (token.text.as_str(), token.score, token.kind)
    };
    assert_eq!(token(0), ("<unk>", 0.0, TokenKind::Unknown));
    assert_eq!(token(1), ("<s>", 0.0, TokenKind::Control));
    assert_eq!(token(13), ("<0x0A>", 0.0, TokenKind::Byte));
    let the = tokenizer.piece_id("▁the").unwrap() as usize;
    assert_eq!(token(the), ("▁the", -3.0, TokenKind::Normal));
    assert_eq!(vocabulary.unlisted_merges().unwrap(), 793);
    assert!(vocabulary.adds_space);

    let (bytes, _) = model_file(&small(), FileType::Q4_0);
    let file = TempFile::new("test.gguf", &bytes);
    let reader = GgufReader::open(&*file).unwrap();
    let mut read = Vocabulary::from_gguf(&reader).unwrap().unwrap();
    // The embedding has two more rows.
    assert_eq!(read.tokens.len(), 2050);
    assert_eq!(read.tokens[2049].text, "[PAD2049]");
    assert_eq!(read.tokens[2049].kind, TokenKind::Unused);
    let json = TempFile::new("test.gguf", read.to_tokenizer_json().unwrap().as_bytes());
    let again = Tokenizer::from_file(&*json).unwrap();
    read.tokens.truncate(2048);
    assert_eq!(read, vocabulary);
    assert_eq!(Vocabulary::of(&again).unwrap(), vocabulary);
    assert_eq!(
        (again.vocab_size(), again.bos_id(), again.eos_id()),
        (2048, 1, 2)
    );
    for text in ["Once upon a time", "  🦙 naïve\n</s>x", ""] {
        let ids = tokenizer.encode_prompt(text).unwrap();
        assert_eq!(again.encode_prompt(text).unwrap(), ids);
        assert_eq!(again.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap());
    }
    let small = Config::layer_wise(LayerWiseConfig {
        vocab_size: 2047,
        ..LayerWiseConfig::default()
    });
    let refused = metadata(&small.unwrap(), "x", FileType::F16, Some(&vocabulary));
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("has 2048 ids; the model's vocabulary has 2047"),
        "{message}"
    );
}

#[test]
fn added_tokens_beyond_the_model_are_left_out() {
    let vocabulary = Vocabulary::of(&tales()).unwrap();
    let mut padded = vocabulary.clone();
    padded.tokens.push(Token {
        text: "<pad>".into(),
        score: 0.0,
        kind: TokenKind::Control,
    });
    let config = Config::layer_wise(LayerWiseConfig {
        vocab_size: 2048,
        ..LayerWiseConfig::default()
    })
    .unwrap();
    let entries = |vocabulary| metadata(&config, "x", FileType::F16, Some(vocabulary)).unwrap();
    assert_eq!(entries(&padded), entries(&vocabulary));
}

#[test]
fn rejects_malformed_vocabularies() {
    let with = |entries: &[(&str, Value)]| {
        let entries: Vec<(String, Value)> = entries
            .iter()
            .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value.clone()))
            .collect();
        let tensor = (spec("t", TensorType::F32, &[1]), vec![0.0]);
        let file = TempFile::new("test.gguf", written(&entries, &[tensor]).unwrap());
        Vocabulary::from_gguf(&GgufReader::open(&*file).unwrap())
    };
    let llama = ("model", Value::from("llama"));
    let tokens = ("tokens", Value::strings(["a", "b"]));
    assert_eq!(with(&[]).unwrap(), None);
    assert_eq!(with(&[("model", "no_vocab".into())]).unwrap(), None);
    let plain = with(&[llama.clone(), tokens.clone()]).unwrap().unwrap();
    assert_eq!(
        (plain.bos_id, plain.eos_id, plain.unk_id, plain.adds_space),
        (1, 2, None, true)
    );
    let cases: [(&[(&str, Value)], &str); 8] = [
        (
            &[("model", "gpt2".into())],
            "expected \"llama\", found \"gpt2\"",
        ),
        (
            std::slice::from_ref(&llama),
            "tokenizer.ggml.tokens is missing",
        ),
        (
            &[llama.clone(), ("tokens", "a".into())],
            "expected an array",
        ),
        (
            &[llama.clone(), ("tokens", Value::ints([1]))],
            "expected texts",
        ),
        (
            &[
                llama.clone(),
                tokens.clone(),
                ("scores", Value::floats([1.0])),
            ],
            "tokenizer.ggml.scores: 1 values for 2 tokens",
        ),
        (
            &[
                llama.clone(),
                tokens.clone(),
                ("scores", Value::floats([1.0, f32::NAN])),
            ],
            "token 1 `b` has the score NaN",
        ),
        (
            &[
                llama.clone(),
                tokens.clone(),
                ("token_type", Value::ints([1, 9])),
            ],
            "token 1 `b` is of the unknown kind 9",
        ),
        (
            &[llama.clone(), tokens.clone(), ("eos_token_id", 2u32.into())],
            "tokenizer.ggml.eos_token_id: 2 is not a token id",
        ),
    ];
    for (entries, expected) in cases {
        let message = with(entries).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}: expected {expected}");
    }
    let twice = with(&[llama, ("tokens", Value::strings(["a", "a"]))])
        .unwrap()
        .unwrap();
    let message = twice.to_tokenizer_json().unwrap_err().to_string();
    assert!(message.contains("two tokens are `a`"), "{message}");
}

mod external_data {
    use openelm_testing::external_data;

    use super::*;

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn llama_tokenizer_needs_no_merges() {
        let folder = external_data().join("llama-tokenizer");
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let mut vocabulary = Vocabulary::of(&tokenizer).unwrap();
        let model = Tokenizer::from_file(folder.join("tokenizer.model")).unwrap();
        assert_eq!(Vocabulary::of(&model).unwrap(), vocabulary);
        assert_eq!(vocabulary.unlisted_merges().unwrap(), 0);
        vocabulary.merges = None;
        let json = TempFile::new(
            "test.gguf",
            vocabulary.to_tokenizer_json().unwrap().as_bytes(),
        );
        let again = Tokenizer::from_file(&*json).unwrap();
        let pieces = [
            " ", "   ", "▁", "\n", "the", "x = y", "Über", "🦙", "</", "中", "123",
        ];
        let mut random = Random(3);
        for _ in 0..300 {
            let text: String = (0..30)
                .map(|_| pieces[random.below(pieces.len())])
                .collect();
            assert_eq!(
                again.encode(&text).unwrap(),
                tokenizer.encode(&text).unwrap()
            );
        }
    }
}
