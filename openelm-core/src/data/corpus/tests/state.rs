//! Saved states, ranks, and the reading thread.

use std::fs;

use openelm_testing::TempDir;

use super::files::{files, open, options, rows, take, tokenizer};
use crate::{
    data::corpus::{Assembly, Corpus, CorpusOptions, Corrupt},
    error::Error,
};

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
        // Later epochs have the same sequences in another order.
        let third = all.len() / 3;
        assert_ne!(all[..third], all[third..2 * third]);
        for (done, (state, statistics)) in states.iter().enumerate() {
            // All of the first sequences, whose fragments end at different positions; then some.
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
            // Continues with another number of ranks.
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
    // At the end every rank has the same number; the remaining sequences are counted.
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
        ("clean_text", |o| o.clean_text = true),
        ("assembly", |o| o.assembly = Assembly::Pack),
        ("readers", |o| o.readers += 1),
        ("shard_files", |o| o.shard_files = true),
        ("shuffle_files", |o| o.shuffle_files = !o.shuffle_files),
        ("seed", |o| o.seed += 1),
        ("files", |o| o.files.truncate(2)),
    ] {
        let error = change(edit).unwrap_err();
        assert!(
            matches!(&error, Error::OtherRun { differences, .. } if differences[0].option == name),
            "{error}"
        );
    }
    assert!(change(|o| (o.world, o.rank, o.epochs) = (3, 1, Some(9))).is_ok());
    // A run that stopped at a row that cannot be read continues without it.
    assert!(change(|o| o.on_corrupt = Corrupt::Skip).is_ok());
    // Other contents of the same size.
    let text = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], text.replacen('e', "a", 1)).unwrap();
    let error = open(&first).restore(state.clone()).unwrap_err().to_string();
    assert!(
        error.contains("files: expected contents of hash"),
        "{error}"
    );
    // An older version did not store a hash of the contents.
    let mut older = serde_json::to_value(&state).unwrap();
    older["options"].as_object_mut().unwrap().remove("contents");
    let older = serde_json::from_value(older).unwrap();
    open(&first).restore(older).unwrap();
    fs::write(&files[0], text).unwrap();
    // A file with another size.
    fs::write(&files[0], rows(1, 24)).unwrap();
    let error = open(&first).restore(state).unwrap_err().to_string();
    assert!(
        error.contains("files: expected names and sizes of hash"),
        "{error}"
    );
}

#[test]
fn dropped_corpus_ends_its_thread() {
    let scratch = TempDir::new();
    let options = options(&[scratch.write("a.jsonl", rows(1, 25))]);
    // Endless, so that the thread waits for space in the queue; if it never ended, this would hang.
    for taken in [0, 1, 200] {
        take(&mut open(&options), taken);
    }
}
