//! Fragments and packed sequences.

use openelm_testing::TempDir;
use serde_json::json;

use super::files::{files, open, options, tokenizer};
use crate::{
    data::corpus::{Assembly, Corpus, CorpusOptions, Sequence},
    error::Result,
};

#[test]
fn sequences_are_the_fragments_that_pass_the_filters() {
    let scratch = TempDir::new();
    let texts = [
        // 8 words: too few characters.
        "a b c d e f g h".to_owned(),
        // Long words of few tokens: too few tokens but enough characters.
        "and the the the the the the the the".to_owned(),
        (0..45)
            .map(|n| format!("word{n}"))
            .collect::<Vec<_>>()
            .join(" "),
        "cafe\u{301} </s> ".repeat(8),
    ];
    let rows: String = texts
        .iter()
        .map(|text| format!("{}\n", json!({"text": text})))
        .collect();
    let file = scratch.write("a.jsonl", rows);
    let options = CorpusOptions {
        epochs: Some(1),
        ..options(&[file])
    };
    let tokenizer = tokenizer();
    let encode = |text: &str| {
        let text = tokenizer.literal().encode(text).unwrap();
        [vec![1], text, vec![2]].concat()
    };
    let words: Vec<&str> = texts[2].split(' ').collect();
    let cafe = "café </s> ".repeat(8);
    let fragments: Vec<Vec<u32>> = vec![
        encode(&words[..20].join(" ")),
        encode(&words[20..40].join(" ")),
        encode(&words[40..].join(" ")),
        encode(cafe.trim_end_matches(' ')),
    ];
    let mut corpus = open(&options);
    let found: Vec<Sequence> = corpus.by_ref().map(Result::unwrap).collect();
    // Five words of the third document make 30 characters: "word40 ..." has 34.
    let expected: Vec<Vec<u32>> = fragments[..4]
        .iter()
        .map(|fragment| fragment[..fragment.len().min(25)].to_vec())
        .collect();
    let tokens: Vec<Vec<u32>> = found.iter().map(|s| s.tokens.clone()).collect();
    assert_eq!(tokens[..3], expected[..3]);
    // 8 x "café </s> " are 17 words, the last one empty.
    assert_eq!(tokens[3][..24], encode(&cafe)[..24]);
    assert_eq!(tokens.len(), 4);
    // `</s>` in a text is encoded as text and does not end it.
    assert!(!tokens[3].contains(&2));
    let statistics = corpus.statistics();
    assert_eq!(
        (
            statistics.epochs,
            statistics.documents,
            statistics.fragments
        ),
        (1, 4, 6)
    );
    assert_eq!(statistics.dropped_by_characters, 1);
    assert_eq!(statistics.dropped_by_tokens, 1);
    let lengths: u64 = tokens.iter().map(|tokens| tokens.len() as u64).sum();
    assert_eq!(
        (statistics.sequences, statistics.pads),
        (4, 4 * 25 - lengths)
    );
    assert_eq!(statistics.tokens, lengths + statistics.truncated_tokens);
    assert_eq!(statistics.targets, lengths - 4);
    assert!(corpus.next().is_none());
}

#[test]
fn packing_keeps_every_token_once() {
    let scratch = TempDir::new();
    let options = CorpusOptions {
        epochs: Some(1),
        ..options(&files(&scratch))
    };
    // Sequences long enough for each whole fragment.
    let whole = CorpusOptions {
        sequence_length: 4_000,
        ..options.clone()
    };
    let fragments = Corpus::read_all(whole, tokenizer()).unwrap();
    assert!(fragments.len() > 60, "{}", fragments.len());
    let packed = CorpusOptions {
        assembly: Assembly::Pack,
        ..options
    };
    let mut corpus = open(&packed);
    let found: Vec<Sequence> = corpus.by_ref().map(Result::unwrap).collect();
    let mut learned: Vec<(u32, u32)> = Vec::new();
    for (index, sequence) in found.iter().enumerate() {
        let length = sequence.tokens.len();
        assert!(length == 25 || length == 24 || index + 1 == found.len());
        assert_eq!(sequence.document_starts[0], 0);
        let rows = sequence.rows(24, 0);
        let pairs = rows.inputs.iter().zip(&rows.targets).zip(&rows.mask);
        learned.extend(pairs.filter(|(_, mask)| **mask).map(|((&a, &b), _)| (a, b)));
    }
    let expected: Vec<(u32, u32)> = fragments
        .iter()
        .flat_map(|fragment| fragment.tokens.windows(2).map(|pair| (pair[0], pair[1])))
        .collect();
    assert_eq!(learned, expected);
    let statistics = corpus.statistics();
    assert_eq!(statistics.targets, expected.len() as u64);
    assert_eq!(statistics.truncated_tokens, 0);
    let all: usize = fragments.iter().map(|fragment| fragment.tokens.len()).sum();
    assert_eq!(statistics.tokens, all as u64);
    assert_eq!(Corpus::count(packed, tokenizer()).unwrap(), statistics);
}
