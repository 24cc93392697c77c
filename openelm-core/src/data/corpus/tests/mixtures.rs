//! Groups with keys, formats and weights, and files of single ranks.

use std::{fs, path::PathBuf};

use openelm_testing::TempDir;

use super::files::{files, open, options, rows, take, tokenizer};
use crate::{
    data::corpus::{Assembly, Corpus, CorpusGroup, CorpusOptions, FileFormat, Sequence},
    error::{Error, Result},
};

/// A group of `count` files with the key `key`, whose names begin with `name`.
fn group(scratch: &TempDir, name: &str, key: &str, count: u64) -> CorpusGroup {
    let file = |n: u64| {
        let text = rows(n * 7 + name.len() as u64, 12 + n);
        scratch.write(
            &format!("{name}{n}.jsonl"),
            text.replace("\"text\"", &format!("\"{key}\"")),
        )
    };
    CorpusGroup {
        text_key: key.to_owned(),
        ..CorpusGroup::new((0..count).map(file).collect())
    }
}

fn grouped(groups: &[CorpusGroup], readers: usize) -> CorpusOptions {
    CorpusOptions {
        groups: groups.to_vec(),
        readers,
        ..options(&[])
    }
}

fn weighted(mut group: CorpusGroup, weight: f64) -> CorpusGroup {
    group.weight = Some(weight);
    group
}

#[test]
fn groups_without_weights_are_one_list() {
    let scratch = TempDir::new();
    let all = files(&scratch);
    let expected = Corpus::read_all(options(&all), tokenizer()).unwrap();
    // The first file with another key, the last one without an extension.
    let text = fs::read_to_string(&all[0]).unwrap();
    let content = scratch.write("other/a.jsonl", text.replace("\"text\"", "\"content\""));
    let book = scratch.write("other/e", fs::read(&all[4]).unwrap());
    let groups = [
        CorpusGroup {
            text_key: "content".into(),
            ..CorpusGroup::new(vec![content])
        },
        CorpusGroup::new(all[1..4].to_vec()),
        CorpusGroup {
            format: Some(FileFormat::Txt),
            ..CorpusGroup::new(vec![book])
        },
    ];
    let found = Corpus::read_all(grouped(&groups, 1), tokenizer()).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn weights_are_shares_of_the_sequences() {
    let scratch = TempDir::new();
    let groups = [
        weighted(group(&scratch, "a", "content", 3), 3.0),
        weighted(group(&scratch, "bb", "text", 2), 1.0),
    ];
    for assembly in [Assembly::Truncate, Assembly::Pack] {
        let with = |groups: &[CorpusGroup]| CorpusOptions {
            assembly,
            ..grouped(groups, 2)
        };
        // The order within a group is that of its files alone.
        let alone = groups.clone().map(|group| {
            let mut options = with(&[]);
            options.files = group.files;
            options.text_key = group.text_key;
            take(&mut open(&options), 400)
        });
        let found = take(&mut open(&with(&groups)), 400);
        let mut drawn = [0; 2];
        for (number, sequence) in found.iter().enumerate() {
            // Python: int(n * 0x9E3779B97F4A7C15 % 2**64 >= 3 * 2**62)
            let step = 0x9E37_79B9_7F4A_7C15_u64;
            let list = usize::from((number as u64).wrapping_mul(step) >= 3 << 62);
            // The second list's files are shuffled by its own number from the second epoch on.
            if list == 0 || drawn[1] < 8 {
                assert_eq!(*sequence, alone[list][drawn[list]], "{number}");
            }
            drawn[list] += 1;
        }
        assert!(drawn[0].abs_diff(300) < 3, "{drawn:?}");
        // Ranks, and every state.
        for world in [2, 5] {
            let mut ranks: Vec<Corpus> = (0..world)
                .map(|rank| {
                    open(&CorpusOptions {
                        rank,
                        world,
                        ..with(&groups)
                    })
                })
                .collect();
            for (round, expected) in found[..60].chunks(world).enumerate() {
                let own: Vec<_> = ranks.iter_mut().flat_map(|rank| take(rank, 1)).collect();
                assert_eq!(own, expected);
                let state = serde_json::to_string(&ranks[1].state()).unwrap();
                let mut other = open(&with(&groups));
                other
                    .restore(serde_json::from_str(&state).unwrap())
                    .unwrap();
                let done = (round + 1) * world;
                assert_eq!(take(&mut other, 9), found[done..done + 9]);
            }
        }
    }
    // An epoch ends with the first group.
    let once = CorpusOptions {
        epochs: Some(1),
        ..grouped(&groups, 1)
    };
    let mut corpus = open(&once);
    let count = corpus.by_ref().count() as u64;
    let statistics = corpus.statistics();
    assert_eq!((statistics.epochs, statistics.sequences), (0, count));
}

fn sharded(groups: &[CorpusGroup], assembly: Assembly) -> CorpusOptions {
    CorpusOptions {
        shard_files: true,
        shuffle_files: true,
        assembly,
        ..grouped(groups, 4)
    }
}

#[test]
fn ranks_with_files_of_their_own_share_one_order() {
    let scratch = TempDir::new();
    let plain = [group(&scratch, "a", "text", 9)];
    let mixed = [
        weighted(plain[0].clone(), 2.0),
        weighted(group(&scratch, "bb", "content", 5), 1.0),
    ];
    for (groups, assembly) in [
        (&plain[..], Assembly::Truncate),
        (&plain[..], Assembly::Pack),
        (&mixed[..], Assembly::Truncate),
    ] {
        let options = sharded(groups, assembly);
        let start = |world: usize| -> Vec<Corpus> {
            let ranks = (0..world).map(|rank| CorpusOptions {
                rank,
                world,
                ..options.clone()
            });
            ranks.map(|options| open(&options)).collect()
        };
        let step = |ranks: &mut Vec<Corpus>| -> Vec<Sequence> {
            ranks.iter_mut().flat_map(|rank| take(rank, 1)).collect()
        };
        let expected = take(&mut open(&options), 240);
        for world in [1, 2, 4] {
            let mut ranks = start(world);
            for (round, part) in expected[..160].chunks(world).enumerate() {
                assert_eq!(step(&mut ranks), part, "{world} {round}");
                if round % 9 > 0 {
                    continue;
                }
                // Continues with another number of ranks.
                let states = ranks.iter().map(Corpus::state).collect();
                let state = ranks[0].merge(states).unwrap();
                let text = serde_json::to_string(&state).unwrap();
                for others in [1, 2, 4] {
                    let mut then = start(others);
                    for rank in &mut then {
                        rank.restore(serde_json::from_str(&text).unwrap()).unwrap();
                    }
                    let done = (round + 1) * world;
                    let next: Vec<_> = (0..8 / others).flat_map(|_| step(&mut then)).collect();
                    assert_eq!(next, expected[done..done + 8], "{world} {others} {round}");
                }
            }
        }
    }
}

#[test]
fn a_rank_opens_files_of_its_own_alone() {
    let scratch = TempDir::new();
    let group = group(&scratch, "a", "text", 8);
    let options = |rank| CorpusOptions {
        rank,
        world: 2,
        ..sharded(std::slice::from_ref(&group), Assembly::Truncate)
    };
    let expected: Vec<_> = (0..2)
        .map(|rank| take(&mut open(&options(rank)), 20))
        .collect();
    // Each file that both ranks can lose is of one rank.
    let mut lost = [0, 0];
    for file in &group.files {
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, text.replace('{', "[")).unwrap();
        for rank in 0..2 {
            let found = open(&options(rank)).take(20).collect::<Result<Vec<_>>>();
            match found {
                Ok(found) => assert_eq!(found, expected[rank]),
                Err(_) => lost[rank] += 1,
            }
        }
        fs::write(file, text).unwrap();
    }
    assert!(
        lost[0] + lost[1] <= 8 && lost[0] > 0 && lost[1] > 0,
        "{lost:?}"
    );
}

#[test]
fn refuses_groups_and_shards_that_cannot_be_read() {
    let scratch = TempDir::new();
    let good = group(&scratch, "a", "text", 3);
    let problem = |options: CorpusOptions| Corpus::open(options, tokenizer()).err().unwrap();
    let with = |edit: fn(&mut CorpusGroup)| {
        let mut other = group(&scratch, "bb", "text", 1);
        edit(&mut other);
        problem(grouped(&[weighted(good.clone(), 1.0), other], 1)).to_string()
    };
    for (edit, expected) in [
        (
            (|group| group.weight = None) as fn(&mut CorpusGroup),
            "groups: group 2: weight: expected a number, as in the other groups, found none",
        ),
        (
            |group| group.weight = Some(0.0),
            "groups: group 2: weight: expected a number above 0, found 0",
        ),
        (|group| group.weight = Some(-2.0), "above 0, found -2"),
        (|group| group.weight = Some(f64::NAN), "above 0, found NaN"),
        (
            |group| (group.weight, group.files) = (Some(1.0), Vec::new()),
            "groups: group 2: files: expected at least one, found none",
        ),
        (
            |group| (group.weight, group.text_key) = (Some(1.0), String::new()),
            "group 2: text_key: expected a key",
        ),
    ] {
        let problem = with(edit);
        assert!(problem.contains(expected), "{problem}");
    }
    let twice = problem(grouped(&[good.clone(), good.clone()], 1)).to_string();
    assert!(
        twice.ends_with("a0.jsonl: the file is in two groups"),
        "{twice}"
    );
    let beside = CorpusOptions {
        files: vec![PathBuf::from("a.jsonl")],
        ..grouped(std::slice::from_ref(&good), 1)
    };
    assert!(matches!(
        problem(beside),
        Error::Option {
            option: "files",
            ..
        }
    ));
    // Three files for four readers are two readers.
    for (world, expected) in [(2, true), (4, false), (3, false)] {
        let options = CorpusOptions {
            world,
            ..sharded(std::slice::from_ref(&good), Assembly::Pack)
        };
        let opened = Corpus::open(options, tokenizer()).err();
        assert_eq!(opened.is_none(), expected, "{world}");
        if let Some(error) = opened {
            let text = error.to_string();
            assert!(
                text.starts_with("world: expected a divisor of 2, the number of readers for 3"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_state_of_one_stream_in_the_earlier_form_is_read() {
    let scratch = TempDir::new();
    let options = options(&[scratch.write("a.jsonl", format!("{}\n", rows(1, 25)))]);
    let mut corpus = open(&options);
    take(&mut corpus, 5);
    let state = corpus.state();
    let mut saved = serde_json::to_value(&state).unwrap();
    let stream = saved["streams"][0].clone();
    let members = saved.as_object_mut().unwrap();
    members.remove("streams");
    members.remove("given");
    members.extend(stream.as_object().unwrap().clone());
    for key in ["groups", "shard_files"] {
        saved["options"].as_object_mut().unwrap().remove(key);
    }
    let mut other = open(&options);
    other
        .restore(serde_json::from_value(saved).unwrap())
        .unwrap();
    assert_eq!(other.state(), state);
    assert_eq!(take(&mut other, 9), take(&mut corpus, 9));
}
