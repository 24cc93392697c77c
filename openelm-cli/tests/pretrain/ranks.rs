//! Runs on several processes.

use std::{collections::BTreeMap, fs, process::Stdio, thread, time::Duration};

use openelm_testing::{failure, success, wait_for};
use serde_json::Value;

use crate::folder::{Scratch, losses};

#[test]
fn ranks_give_the_losses_of_one_process() {
    let scratch = Scratch::new();
    success(scratch.pretrain("one", &["--quiet"]));
    let alone = losses(&scratch.path("one"), "train_loss");
    assert_eq!(alone.len(), 16);
    assert!(alone[15] < alone[0] - 0.5, "{alone:?}");
    for count in ["2", "4"] {
        success(scratch.pretrain(count, &["--quiet", "--processes", count]));
        let together = losses(&scratch.path(count), "train_loss");
        assert_eq!(together.len(), 16);
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() <= 1e-4 * a, "{count}: {a} {b}");
        }
        let valid = |name: &str| losses(&scratch.path(name), "val_loss");
        for (a, b) in valid("one").iter().zip(valid(count)) {
            assert!((a - b).abs() <= 1e-4 * a, "{count}: {a} {b}");
        }
    }
    // The same weights apart from rounding, and identical weights in a second run.
    success(scratch.pretrain("again", &["--quiet", "--processes", "2"]));
    assert_eq!(scratch.weights("2"), scratch.weights("again"));
    // Started on two processes and finished on one; started on one and finished on four.
    for (name, first, then) in [("fewer", "2", "1"), ("more", "1", "4")] {
        let mut command = scratch.pretrain(name, &["--processes", first, "--quiet"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&scratch.path(name).join("training_state.safetensors"));
        child.kill().unwrap();
        child.wait().unwrap();
        // Ranks end with the process that started them.
        thread::sleep(Duration::from_millis(500));
        success(scratch.pretrain(name, &["--processes", then, "--resume", "--quiet"]));
        let found = losses(&scratch.path(name), "train_loss");
        assert_eq!(found.len(), 16);
        for (a, b) in alone.iter().zip(&found) {
            assert!((a - b).abs() <= 1e-4 * a, "{name}: {a} {b}");
        }
    }
    let message = failure(scratch.pretrain("three", &["--processes", "3"]), 2);
    assert!(
        message.contains("--batch-size: expected a multiple of 3"),
        "{message}"
    );
}

#[test]
fn an_error_of_another_rank_is_shown() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.path("train.jsonl")).unwrap();
    scratch.0.write("shards/0.jsonl", &text);
    scratch.0.write("shards/1.jsonl", "{\"text\": 1}\n");
    let data = scratch.path("shards");
    let data = data.to_str().unwrap();
    let more = [
        "--shard-files",
        "--interleave=2",
        "--processes=2",
        "--data",
        data,
    ];
    let message = failure(scratch.pretrain("run", &more), 1);
    assert!(message.contains("1.jsonl"), "{message}");
    assert!(message.contains("rank 1 of 2"), "{message}");
    assert!(!message.contains("--resume"), "{message}");
}

#[test]
fn sharded_ranks_give_the_losses_of_one_process() {
    let scratch = Scratch::new();
    success(scratch.pretrain("one", &["--quiet"]));
    let of = |name: &str, key: &str| losses(&scratch.path(name), key);
    let same = |name: &str| {
        for key in ["train_loss", "val_loss"] {
            let (alone, found) = (of("one", key), of(name, key));
            assert_eq!(found.len(), alone.len(), "{name}");
            for (a, b) in alone.iter().zip(&found) {
                assert!((a - b).abs() <= 1e-4 * a, "{name}: {a} {b}");
            }
        }
        for folder in ["model", "ema", "average"] {
            let expected = weights(&scratch, "one", folder);
            for (tensor, found) in weights(&scratch, name, folder) {
                let apart = expected[&tensor]
                    .iter()
                    .zip(&found)
                    .map(|(a, b)| (a - b).abs());
                let most = apart.fold(0.0, f32::max);
                assert!(most < 2e-3, "{name}/{folder}: `{tensor}` differs by {most}");
            }
        }
    };
    for count in ["2", "4"] {
        // Several batches of a process for each update.
        let more = [
            "--quiet",
            "--fsdp",
            "--micro-batch-size=1",
            "--processes",
            count,
        ];
        success(scratch.pretrain(count, &more));
        same(count);
    }
    // Killed with one number of processes, and finished with another, sharded or not.
    for (name, first, then) in [
        (
            "fewer",
            &["--processes=4", "--fsdp"][..],
            &["--processes=2", "--fsdp"][..],
        ),
        ("single", &["--processes=2", "--fsdp"], &[]),
        ("more", &[], &["--processes=4", "--fsdp"]),
    ] {
        let mut command = scratch.pretrain(name, &[first, &["--quiet"]].concat());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&scratch.path(name).join("training_state.safetensors"));
        child.kill().unwrap();
        child.wait().unwrap();
        thread::sleep(Duration::from_millis(500));
        success(scratch.pretrain(name, &[then, &["--resume", "--quiet"]].concat()));
        same(name);
    }
}

/// The f32 tensors of a folder of a run.
fn weights(scratch: &Scratch, run: &str, folder: &str) -> BTreeMap<String, Vec<f32>> {
    let path = scratch.path(run).join(folder).join("model.safetensors");
    let bytes = fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let tensors = tensors.as_object().unwrap().iter();
    let tensors = tensors.filter(|(name, _)| *name != "__metadata__");
    let read = tensors.map(|(name, tensor)| {
        assert_eq!(tensor["dtype"], "F32");
        let offset = |index: usize| tensor["data_offsets"][index].as_u64().unwrap() as usize;
        let data = &bytes[header..][offset(0)..offset(1)];
        let numbers = data.as_chunks::<4>().0.iter();
        (
            name.clone(),
            numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        )
    });
    read.collect()
}

#[test]
fn ranks_with_files_of_their_own_give_the_losses_of_one_process() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.path("train.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (number, lines) in lines.chunks(50).enumerate() {
        let lines = lines.join("\n");
        let (folder, lines) = match number {
            0..4 => ("a", lines),
            _ => ("b", lines.replace("\"text\"", "\"content\"")),
        };
        scratch.0.write(&format!("{folder}/{number}.jsonl"), lines);
    }
    let groups = format!(
        "interleave = 2\nshard-files = true\n[[data]]\nfiles = [{:?}]\nweight = 2\n\
         [[data]]\nfiles = [{:?}]\ntext-key = \"content\"\nweight = 1\n",
        scratch.path("a"),
        scratch.path("b"),
    );
    let settings = fs::read_to_string(scratch.path("run.toml")).unwrap();
    let settings: Vec<&str> = settings
        .lines()
        .filter(|line| !line.starts_with("data"))
        .collect();
    let settings = settings.join("\n");
    let (options, model) = settings.split_once("[model]").unwrap();
    scratch
        .0
        .write("run.toml", format!("{options}{groups}[model]{model}"));
    success(scratch.pretrain("one", &["--quiet"]));
    let alone = losses(&scratch.path("one"), "train_loss");
    success(scratch.pretrain("two", &["--quiet", "--processes=2"]));
    // Started on two processes and finished on one.
    let mut command = scratch.pretrain("fewer", &["--processes=2", "--quiet"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    wait_for(&scratch.path("fewer").join("training_state.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    thread::sleep(Duration::from_millis(500));
    success(scratch.pretrain("fewer", &["--resume", "--quiet"]));
    for name in ["two", "fewer"] {
        let found = losses(&scratch.path(name), "train_loss");
        assert_eq!(found.len(), 16);
        for (a, b) in alone.iter().zip(&found) {
            assert!((a - b).abs() <= 1e-4 * a, "{name}: {a} {b}");
        }
    }
    let message = failure(scratch.pretrain("four", &["--processes=4"]), 2);
    assert!(
        message.contains("--processes: expected a divisor of 2, the number of readers for 4 files"),
        "{message}"
    );
}
