//! Pausing within the steps of a training run on a slow device.
#![cfg(feature = "inject-faults")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openelm_core::internal::inject_delay;
use openelm_ffi::{
    FinetuneEvent, FinetuneOptions, FinetuneRun, LanguageModel, LoadOptions,
    default_finetune_options, finetune, load_model, pause, resume,
};
use openelm_testing::{TempDir, block_on, tales};

/// Time of a batch on the slow device.
const BATCH: Duration = Duration::from_millis(300);
/// A pause waits for one batch, not for all.
const LONGEST: Duration = Duration::from_millis(900);

fn load() -> Arc<LanguageModel> {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    run.model().unwrap()
}

fn start(model: &Arc<LanguageModel>, folder: &TempDir, name: &str) -> Arc<FinetuneRun> {
    let options = FinetuneOptions {
        iters: 2,
        batch_size: 1,
        max_seq_length: 16,
        num_layers: Some(1),
        preferences: name == "pairs",
        ..default_finetune_options().unwrap()
    };
    let target = folder.at(&format!("run-{name}"));
    finetune(Arc::clone(model), folder.at(name), target, options, false).unwrap()
}

/// All losses of a run, in order.
fn losses(run: &FinetuneRun) -> Vec<f64> {
    let mut losses = Vec::new();
    while let Some(event) = block_on(run.next()).unwrap() {
        match event {
            FinetuneEvent::Step { loss, .. } => losses.push(f64::from(loss)),
            FinetuneEvent::Validation { loss, .. } => losses.push(loss),
            FinetuneEvent::Saved { .. } | FinetuneEvent::Finished { .. } => {}
        }
    }
    losses
}

/// Eight rows to train on and to validate on, and eight pairs.
fn data() -> TempDir {
    let folder = TempDir::new();
    let animals = ["fox", "bear", "wolf", "hare", "owl", "cat", "dog", "hen"];
    let row = |animal: &&str| format!("{{\"text\": \"The {animal} sleeps.\"}}\n");
    let rows: String = animals.iter().map(row).collect();
    let pair = |animal: &&str| {
        format!(
            "{{\"prompt\": \"The {animal}\", \"chosen\": \" sleeps.\", \"rejected\": \" x\"}}\n"
        )
    };
    let pairs: String = animals.iter().map(pair).collect();
    for name in ["rows", "pairs"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    folder.write("rows/train.jsonl", &rows);
    folder.write("rows/valid.jsonl", &rows);
    folder.write("pairs/train.jsonl", &pairs);
    folder
}

/// True if nothing is in progress within `milliseconds`, in a pause that goes on.
fn is_idle(milliseconds: u64) -> bool {
    let idle = pause(milliseconds).unwrap();
    resume().unwrap();
    idle
}

/// One test: the gate belongs to the process.
#[test]
fn pauses_within_the_parts_of_a_run() {
    let model = load();
    let data = data();
    for name in ["rows", "pairs"] {
        let expected = losses(&start(&model, &data, name));
        assert!(expected.len() >= 2, "{expected:?}");
        std::fs::remove_dir_all(data.join(format!("run-{name}"))).unwrap();

        // Eight batches of 300 ms are one turn of the worker, or one job.
        inject_delay(BATCH);
        let run = start(&model, &data, name);
        for _ in 0..3 {
            thread::sleep(BATCH);
            let started = Instant::now();
            assert!(pause(4_000).unwrap(), "{name}");
            assert!(
                started.elapsed() < LONGEST,
                "{name}: {:?}",
                started.elapsed()
            );
            thread::sleep(2 * BATCH);
            assert!(is_idle(0), "{name}: nothing began while paused");
            resume().unwrap();
        }
        inject_delay(Duration::ZERO);
        assert_eq!(losses(&run), expected, "{name}");
    }

    // Data that is read for more than a second: nothing is in progress on the device.
    data.write(
        "long/train.jsonl",
        "{\"text\": \"The fox sleeps.\"}\n".repeat(60_000),
    );
    let run = start(&model, &data, "long");
    thread::sleep(Duration::from_millis(100));
    assert!(pause(0).unwrap(), "reading holds the gate");
    thread::sleep(Duration::from_millis(100));
    assert!(is_idle(0));
    resume().unwrap();
    assert!(block_on(run.next()).unwrap().is_some());
}
