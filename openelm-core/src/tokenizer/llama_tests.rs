//! The real LLaMA tokenizer and the small trained model's, which lie beside the repository; a
//! test whose files are absent says so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    find::FILE_NAMES,
    tokenizer::{Tokenizer, tests::random_text},
};

/// A path beside the repository, if it is there.
fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path);
    if !full.exists() {
        eprintln!("ignored: {} is not there", full.display());
    }
    full.exists().then_some(full)
}

/// The LLaMA tokenizer from both kinds of file.
fn llama() -> Option<[Tokenizer; 2]> {
    let folder = shared("data/llama-tokenizer")?;
    Some(FILE_NAMES.map(|name| Tokenizer::from_file(folder.join(name)).unwrap()))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn any_text_comes_back() {
    let Some([json, model]) = llama() else { return };
    let mut state = 5;
    for _ in 0..3_000 {
        let text = random_text(&mut state);
        let ids = json.encode(&text).unwrap();
        assert_eq!(json.decode(&ids).unwrap(), text);
        assert_eq!(model.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn the_golden_texts_have_the_golden_ids() {
    let (Some(tokenizers), Some(folder)) = (llama(), shared("data/llama-tokenizer")) else {
        return;
    };
    let [texts, ids] = ["inp", "out"]
        .map(|end| fs::read_to_string(folder.join("golden").with_extension(end)).unwrap());
    let texts: Vec<_> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<_> = ids.split('\n').collect();
    assert_eq!((texts.len(), ids.len()), (47, 47));
    for (text, ids) in texts.iter().zip(ids) {
        let ids: Vec<u32> = ids
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        for tokenizer in &tokenizers {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
        }
    }
}

#[test]
fn both_llama_files_agree_on_books_and_with_the_library() {
    let (Some([json, model]), Some(corpus)) = (llama(), shared("data/corpus")) else {
        return;
    };
    let library = tokenizers::Tokenizer::from_file(json.path()).unwrap();
    let mut tokens = 0;
    for (file, count) in [
        ("fairytales_val.jsonl", 23),
        ("gutenberg_children.jsonl", 2),
    ] {
        for line in lines(&corpus.join(file)).iter().take(count) {
            let text = line["text"].as_str().unwrap();
            let ids = json.encode(text).unwrap();
            assert_eq!(model.encode(text).unwrap(), ids);
            assert_eq!(library.encode_fast(text, false).unwrap().get_ids(), ids);
            assert_eq!(model.decode(&ids).unwrap(), text);
            assert_eq!(library.decode(&ids, true).unwrap(), text);
            tokens += ids.len();
        }
    }
    assert!(tokens > 100_000, "{tokens}");
}

#[test]
fn the_small_trained_model_gets_its_prompts() {
    let Some(folder) = shared("models/tales-hf") else {
        return;
    };
    let tokenizer = Tokenizer::find(&folder, None).unwrap();
    let reference = fs::read_to_string(folder.join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&reference).unwrap();
    let continuations = reference["continuations"].as_array().unwrap();
    assert_eq!(continuations.len(), 8);
    for continuation in continuations {
        let ids =
            |key: &str| serde_json::from_value::<Vec<u32>>(continuation[key].clone()).unwrap();
        let prompt = tokenizer
            .encode_prompt(continuation["prompt"].as_str().unwrap())
            .unwrap();
        assert_eq!(prompt, ids("prompt_ids"));
        let mut detokenizer = tokenizer.detokenizer(&prompt);
        let text: String = ids("greedy_ids")
            .iter()
            .map(|&id| detokenizer.push(id).unwrap())
            .collect();
        assert_eq!(
            text.trim_start(),
            continuation["greedy_text"].as_str().unwrap().trim_start()
        );
    }
}
