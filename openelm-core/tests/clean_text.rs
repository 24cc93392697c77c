//! Repaired text, and pairs that are cut off, in the data of both trainers.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Tokenizer,
    corpus::{Assembly, Corpus, CorpusOptions},
    dataset::{Dataset, DatasetOptions, PreferenceDataset},
};
use openelm_testing::{TempDir, tales};

/// Mojibake, quotes, a ligature, an entity, a full-width letter; and `ftfy.fix_text`'s result.
const ODD: &str = "The kingâ€™s “ﬁne” caf\u{65}\u{301} &amp; Ａ";
const CLEAN: &str = "The king's \"fine\" café & A";

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(tales().join("tokenizer.json")).unwrap()
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[test]
fn rows_for_fine_tuning_are_repaired() {
    let folder = TempDir::new();
    let (odd, clean) = (json(ODD), json(CLEAN));
    let options = |clean_text| DatasetOptions {
        clean_text,
        ..DatasetOptions::default()
    };
    for row in [
        "{\"text\": TEXT}",
        "{\"prompt\": TEXT, \"completion\": TEXT}",
        "{\"messages\": [{\"role\": \"user\", \"content\": TEXT}, \
          {\"role\": \"assistant\", \"content\": TEXT}]}",
        "{\"instruction\": TEXT, \"output\": TEXT}",
    ] {
        let read = |text: &str, clean_text| {
            let path = folder.write("a.jsonl", row.replace("TEXT", text));
            let dataset = Dataset::read(path, &tokenizer(), &options(clean_text)).unwrap();
            dataset.examples().to_vec()
        };
        assert_eq!(read(&odd, true), read(&clean, false), "{row}");
        assert_ne!(read(&odd, false), read(&clean, false), "{row}");
    }
    let read = |text: &str, clean_text| {
        let path = folder.write("a.txt", text);
        let dataset = Dataset::read(path, &tokenizer(), &options(clean_text)).unwrap();
        dataset.examples().to_vec()
    };
    assert_eq!(read(ODD, true), read(CLEAN, false));
}

#[test]
fn documents_for_pre_training_are_repaired() {
    let folder = TempDir::new();
    let read = |text: &str, clean_text| {
        let path = folder.write("a.jsonl", format!("{{\"text\": {}}}", json(text)));
        let options = CorpusOptions {
            files: vec![path],
            min_characters: 0,
            min_tokens: 0,
            clean_text,
            ..CorpusOptions::new(Assembly::Truncate)
        };
        Corpus::read_all(options, tokenizer()).unwrap()
    };
    assert_eq!(read(ODD, true), read(CLEAN, false));
    assert_ne!(read(ODD, false), read(CLEAN, false));
}

#[test]
fn long_pairs_are_cut_off_by_choice() {
    let folder = TempDir::new();
    let row = |prompt: usize, chosen: usize| {
        let words = |count| vec!["bear"; count].join(" ");
        format!(
            "{{\"prompt\": {}, \"chosen\": {}, \"rejected\": \" no\"}}\n",
            json(&words(prompt)),
            json(&format!(" {}", words(chosen)))
        )
    };
    let path = folder.write("a.jsonl", [row(3, 2), row(90, 2), row(90, 90)].concat());
    let read = |max_prompt_length| {
        let options = DatasetOptions {
            max_length: 24,
            max_prompt_length,
            ..DatasetOptions::default()
        };
        PreferenceDataset::read(&path, &tokenizer(), &options)
    };
    let dropped = read(None).unwrap().counts();
    assert_eq!(
        (dropped.examples, dropped.dropped, dropped.truncated),
        (1, 2, 0)
    );
    let cut = read(Some(10)).unwrap();
    let counts = cut.counts();
    assert_eq!(
        (counts.examples, counts.dropped, counts.truncated),
        (3, 0, 2)
    );
    let [whole, prompt, both] = cut.pairs() else {
        unreachable!("{counts:?}")
    };
    assert_eq!(whole.chosen.tokens[0], 1);
    assert_eq!(prompt.chosen.first_target, 10);
    assert_eq!(prompt.chosen.tokens.last(), Some(&2));
    // The answer that is cut off has no end.
    assert_eq!(
        (both.chosen.first_target, both.chosen.tokens.len()),
        (10, 24)
    );
    assert_ne!(both.chosen.tokens.last(), Some(&2));
    assert_eq!(both.rejected.first_target, 10);
    for most in [0, 24, 99] {
        let error = read(Some(most)).unwrap_err().to_string();
        assert!(
            error.starts_with("max_prompt_length: expected 1 to 23"),
            "{error}"
        );
    }
}
