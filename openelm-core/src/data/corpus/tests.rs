//! The corpus as a whole, on files made here, with the bundled tokenizer.

use std::{fs, path::PathBuf};

use openelm_testing::{TempDir, gzip, tales};
use serde_json::json;

use super::*;
use crate::{
    documents::parquet::tests::write as write_parquet,
    error::{Error, Result},
    tokenizer::Tokenizer,
};

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(tales().join("tokenizer.json")).unwrap()
}

/// Small sizes, so that every filter has something to do.
fn options(files: &[PathBuf]) -> CorpusOptions {
    CorpusOptions {
        files: files.to_vec(),
        sequence_length: 24,
        words_per_fragment: 20,
        min_characters: 30,
        min_tokens: 12,
        ..CorpusOptions::new(Assembly::Truncate)
    }
}

/// Document `n` of a file: of a length and with words of its own.
fn document(file: u64, n: u64) -> String {
    let words = (file * 31 + n * 17) % 67;
    let words = (0..words).map(|word| {
        let pick = (file * 7_919 + n * 104_729 + word * 1_299_709) % 9;
        [
            "the", "old", "king", "went", "tö", "42", "woods,", "and", "\"why?\"",
        ][pick as usize]
    });
    words.collect::<Vec<_>>().join(" ")
}

fn rows(file: u64, count: u64) -> String {
    (0..count)
        .map(|n| format!("{}\n", json!({"text": document(file, n)})))
        .collect()
}

/// Five files of four kinds.
fn files(scratch: &TempDir) -> Vec<PathBuf> {
    let parquet = scratch.join("d.parquet");
    let texts: Vec<String> = (0..30).map(|n| document(4, n)).collect();
    let texts: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
    write_parquet(&parquet, &texts, 7, ::parquet::basic::Compression::SNAPPY);
    let book: Vec<String> = (0..9).map(|n| document(5, n)).collect();
    vec![
        scratch.write("a.jsonl", rows(1, 25)),
        scratch.write(
            "b.jsonl.zst",
            zstd::encode_all(rows(2, 25).as_bytes(), 3).unwrap(),
        ),
        scratch.write("c.json.gz", gzip(rows(3, 15).as_bytes())),
        parquet,
        scratch.write("e.txt", book.join(" ")),
    ]
}

fn take(corpus: &mut Corpus, count: usize) -> Vec<Sequence> {
    corpus.by_ref().take(count).map(Result::unwrap).collect()
}

fn open(options: &CorpusOptions) -> Corpus {
    Corpus::open(options.clone(), tokenizer()).unwrap()
}

#[test]
fn sequences_are_the_fragments_that_pass_the_filters() {
    let scratch = TempDir::new();
    let texts = [
        // 8 words: too few characters.
        "a b c d e f g h".to_owned(),
        // Long words of few tokens: too few tokens is told apart from too few characters.
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
    // `</s>` in a text is spelled, and ends nothing.
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
    // All of each fragment, since it is as long as it needs to be.
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

#[test]
fn restores_from_every_state() {
    let scratch = TempDir::new();
    let files = files(&scratch);
    for (assembly, readers) in [
        (Assembly::Truncate, 1),
        (Assembly::Truncate, 3),
        (Assembly::Pack, 1),
        (Assembly::Pack, 7),
    ] {
        let options = CorpusOptions {
            assembly,
            readers,
            epochs: Some(3),
            ..options(&files)
        };
        let mut corpus = open(&options);
        let mut all = Vec::new();
        let mut states = vec![(corpus.state(), corpus.statistics())];
        while let Some(sequence) = corpus.next() {
            all.push(sequence.unwrap());
            states.push((corpus.state(), corpus.statistics()));
        }
        let end = (corpus.state(), corpus.statistics());
        assert!(all.len() > 180, "{}", all.len());
        // Epochs after the first have another order of the same.
        let third = all.len() / 3;
        assert_ne!(all[..third], all[third..2 * third]);
        for (done, (state, statistics)) in states.iter().enumerate() {
            // All of the first sequences, which differ in where their fragments end; then some.
            if done > 50 && done % 7 > 0 && done + 3 < all.len() {
                continue;
            }
            let state = serde_json::to_string(state).unwrap();
            assert!(state.len() < 3_000);
            let mut resumed = open(&options);
            resumed
                .restore(serde_json::from_str(&state).unwrap())
                .unwrap();
            assert_eq!(resumed.statistics(), *statistics);
            let count = if done % 20 == 0 { all.len() } else { 3 };
            let found = take(&mut resumed, count);
            let until = all.len().min(done + count);
            assert_eq!(
                found,
                all[done..until],
                "{assembly:?} {readers} from {done}"
            );
            if until < all.len() {
                assert_eq!((resumed.state(), resumed.statistics()), states[until]);
            } else {
                assert!(resumed.next().is_none());
                assert_eq!((resumed.state(), resumed.statistics()), end);
            }
        }
    }
}

#[test]
fn ranks_share_one_order() {
    let scratch = TempDir::new();
    let files = files(&scratch);
    for assembly in [Assembly::Truncate, Assembly::Pack] {
        let options = CorpusOptions {
            assembly,
            readers: 2,
            ..options(&files)
        };
        let alone = take(&mut open(&options), 96);
        let rank = |rank, world| CorpusOptions {
            rank,
            world,
            ..options.clone()
        };
        for world in [2, 4] {
            let mut ranks: Vec<Corpus> = (0..world).map(|r| open(&rank(r, world))).collect();
            for expected in alone[..48].chunks(world) {
                let found: Vec<_> = ranks.iter_mut().flat_map(|r| take(r, 1)).collect();
                assert_eq!(found, expected);
                assert!(ranks.iter().all(|r| r.state() == ranks[0].state()));
            }
            // Goes on with another number of ranks.
            let world = 6 - world;
            let mut others: Vec<Corpus> = (0..world).map(|r| open(&rank(r, world))).collect();
            for other in &mut others {
                other.restore(ranks[0].state()).unwrap();
            }
            for expected in alone[48..].chunks(world) {
                let found: Vec<_> = others.iter_mut().flat_map(|r| take(r, 1)).collect();
                assert_eq!(found, expected);
            }
        }
    }
    // At the end every rank has had as many; what is over is counted.
    let once = CorpusOptions {
        epochs: Some(1),
        ..options(&files)
    };
    let total = Corpus::count(once.clone(), tokenizer()).unwrap().sequences;
    for rank in 0..7 {
        let mut corpus = open(&CorpusOptions {
            rank,
            world: 7,
            ..once.clone()
        });
        assert_eq!(corpus.by_ref().count() as u64, total / 7);
        assert_eq!(corpus.statistics().left_over, total % 7);
    }
    assert_ne!(total % 7, 0);
}

#[test]
fn corrupt_files_fail_or_are_skipped() {
    let scratch = TempDir::new();
    let good = scratch.write("z.jsonl", rows(1, 25));
    let whole = Corpus::read_all(
        CorpusOptions {
            files: vec![good],
            ..options(&[])
        },
        tokenizer(),
    )
    .unwrap();
    let archive = |packed: Vec<u8>| packed[..packed.len() - 9].to_vec();
    let parquet = scratch.join("whole.parquet");
    write_parquet(
        &parquet,
        &[Some("a")],
        1,
        ::parquet::basic::Compression::SNAPPY,
    );
    let column = fs::read(&parquet).unwrap();
    fs::remove_file(parquet).unwrap();
    for (name, bytes, expected) in [
        (
            "a.json.gz",
            archive(gzip(b"{}")),
            "a.json.gz: the archive is cut off",
        ),
        (
            "a.jsonl.zst",
            vec![7; 99],
            "a.jsonl.zst: it cannot be read on",
        ),
        (
            "a.parquet",
            archive(column),
            "a.parquet: it is no undamaged parquet file",
        ),
        (
            "a.jsonl",
            b"{\"text\": 3}\n{\"txt\": \"\"}\n".to_vec(),
            "a.jsonl:1: `text`: expected",
        ),
        ("a.txt", vec![0xFF; 30], "a.txt: it is no UTF-8 text"),
    ] {
        let bad = scratch.write(name, bytes);
        let folder = [scratch.to_path_buf()];
        let mut corpus = open(&options(&folder));
        let error = corpus.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
        assert!(corpus.next().is_none());

        let skip = CorpusOptions {
            on_corrupt: Corrupt::Skip,
            epochs: Some(2),
            ..options(&folder)
        };
        let mut corpus = open(&skip);
        let found: Vec<Sequence> = corpus.by_ref().map(Result::unwrap).collect();
        assert_eq!(found, [whole.clone(), whole.clone()].concat());
        let statistics = corpus.statistics();
        assert_eq!(statistics.corrupt.len(), 1);
        assert_eq!(statistics.corrupt[0].path, bad.display().to_string());
        assert!(statistics.corrupt[0].problem.contains(expected));
        let count = if name == "a.jsonl" { 4 } else { 2 };
        assert_eq!(statistics.corrupt[0].count, count, "{name}");
        fs::remove_file(bad).unwrap();
    }
}

#[test]
fn returns_sequences_before_a_corrupt_row() {
    let scratch = TempDir::new();
    let file = scratch.write("a.jsonl", format!("{}oops\n", rows(1, 20)));
    let found: Vec<_> = open(&options(&[file])).collect();
    assert!(found.len() > 10);
    let (last, good) = found.split_last().unwrap();
    assert!(good.iter().all(Result::is_ok));
    let error = last.as_ref().unwrap_err().to_string();
    assert!(error.contains("a.jsonl:21: malformed JSON"), "{error}");
}

#[test]
fn empty_corpus_reports_the_cause() {
    let scratch = TempDir::new();
    let texts = ["too short", "the the the the the the the the the"];
    let rows: String = texts
        .iter()
        .map(|text| format!("{}\n", json!({"text": text})))
        .collect();
    let file = scratch.write("a.jsonl", rows);
    for epochs in [None, Some(1)] {
        let mut corpus = open(&CorpusOptions {
            epochs,
            ..options(std::slice::from_ref(&file))
        });
        let error = corpus.next().unwrap().unwrap_err().to_string();
        let expected = "no document is left of 1 files: 2 documents gave 2 fragments, of which 1 have \
                        fewer than 30 characters and 1 fewer than 12 tokens";
        assert!(error.contains(expected), "{error}");
    }
    let empty = scratch.write("b.jsonl", "\n");
    let error = open(&options(&[empty])).next().unwrap().unwrap_err();
    assert!(
        error.to_string().contains("0 documents gave 0 fragments"),
        "{error}"
    );
}

#[test]
fn rejects_states_of_other_options() {
    let scratch = TempDir::new();
    let files = files(&scratch);
    let first = options(&files);
    let mut corpus = open(&first);
    take(&mut corpus, 5);
    let state = corpus.state();
    let change = |edit: fn(&mut CorpusOptions)| {
        let mut changed = first.clone();
        edit(&mut changed);
        open(&changed).restore(state.clone())
    };
    for (name, edit) in [
        (
            "text_key",
            (|o| o.text_key = "t".into()) as fn(&mut CorpusOptions),
        ),
        ("sequence_length", |o| o.sequence_length += 1),
        ("words_per_fragment", |o| o.words_per_fragment += 1),
        ("min_characters", |o| o.min_characters += 1),
        ("min_tokens", |o| o.min_tokens += 1),
        ("assembly", |o| o.assembly = Assembly::Pack),
        ("readers", |o| o.readers += 1),
        ("seed", |o| o.seed += 1),
        ("on_corrupt", |o| o.on_corrupt = Corrupt::Skip),
        ("files", |o| o.files.truncate(2)),
    ] {
        let error = change(edit).unwrap_err();
        assert!(
            matches!(&error, Error::OtherRun { differences, .. } if differences[0].option == name),
            "{error}"
        );
    }
    assert!(change(|o| (o.world, o.rank, o.epochs) = (3, 1, Some(9))).is_ok());
    // A file that has changed in size.
    fs::write(&files[0], rows(1, 24)).unwrap();
    let error = open(&first).restore(state).unwrap_err().to_string();
    assert!(
        error.contains("files: expected names and sizes of hash"),
        "{error}"
    );
}

#[test]
fn rejects_options_out_of_range() {
    for (name, edit) in [
        (
            "sequence_length",
            (|o| o.sequence_length = 0) as fn(&mut CorpusOptions),
        ),
        ("words_per_fragment", |o| o.words_per_fragment = 0),
        ("readers", |o| o.readers = 0),
        ("world", |o| o.world = 0),
        ("rank", |o| o.rank = 1),
        ("epochs", |o| o.epochs = Some(0)),
        ("files", |_| ()),
    ] {
        let mut options = options(&[]);
        edit(&mut options);
        let error = Corpus::open(options, tokenizer()).err().unwrap();
        assert!(
            matches!(error, Error::Option { option, .. } if option == name),
            "{error}"
        );
    }
}

#[test]
fn dropped_corpus_ends_its_thread() {
    let scratch = TempDir::new();
    let options = options(&[scratch.write("a.jsonl", rows(1, 25))]);
    // Endless, so that the thread waits for room in the queue; would hang if it stayed there.
    for taken in [0, 1, 200] {
        take(&mut open(&options), taken);
    }
}
