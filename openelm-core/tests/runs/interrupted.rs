//! Runs that ended early, at any time, and their continuation.

use std::{fs, path::Path};

use openelm_core::{
    Error, Result,
    finetune::{FinetuneEnd, FinetuneEvent},
    pretrain::PretrainEvent,
    train::Schedule,
};
use openelm_testing::TempDir;
use serde_json::Value;

use crate::tiny::{Pretraining, STATE, Tuning, stop_at_two, tuned_to_two};

fn finish<E>(run: impl Iterator<Item = Result<E>>) -> Vec<E> {
    run.map(Result::unwrap).collect()
}

/// Files and folders that a run makes before its first save.
fn leave(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = if *name == "run.lock" { "7\n" } else { "half" };
        fs::write(path, text).unwrap();
    }
}

#[test]
fn finetuning_that_was_never_saved_starts_again() {
    let whole = TempDir::new();
    finish(Tuning::new().begin(&whole, false).unwrap());
    let read = |folder: &TempDir, name| fs::read(folder.join(name)).unwrap();
    for stop in ["missing", "empty", "after a step", "killed"] {
        let parts = TempDir::new();
        match stop {
            "missing" => fs::remove_dir(&parts).unwrap(),
            "after a step" => {
                let run = Tuning::new().begin(&parts, false).unwrap();
                assert_eq!(run.map(Result::unwrap).take(2).count(), 2);
                assert!(!parts.join(STATE).exists());
            }
            "killed" => leave(
                &parts,
                &[
                    "run.lock",
                    "metrics.jsonl",
                    "ranks.json",
                    "reference.safetensors",
                    "best/adapters.safetensors",
                    ".training_state.safetensors.partial",
                    "training_state.safetensors.partial",
                ],
            ),
            _ => {}
        }
        let run = Tuning::new().begin(&parts, true).unwrap();
        assert_eq!(run.iteration(), 0);
        finish(run);
        for name in ["adapters.safetensors", "best/adapters.safetensors", STATE] {
            assert!(read(&whole, name) == read(&parts, name), "{stop}: {name}");
        }
    }
}

#[test]
fn pretraining_that_was_never_saved_starts_again() {
    let whole = TempDir::new();
    finish(Pretraining::new().begin(&whole, false).unwrap());
    let read = |folder: &TempDir, name| fs::read(folder.join(name)).unwrap();
    for stop in ["missing", "empty", "after a step", "killed"] {
        let parts = TempDir::new();
        match stop {
            "missing" => fs::remove_dir(&parts).unwrap(),
            "after a step" => {
                let run = Pretraining::new().begin(&parts, false).unwrap();
                assert_eq!(run.map(Result::unwrap).take(1).count(), 1);
                assert!(!parts.join(STATE).exists());
            }
            // During the first save, of a run with another interval: the checkpoint must not
            // become a part of the average.
            "killed" => leave(
                &parts,
                &[
                    "run.lock",
                    "metrics.jsonl",
                    "ranks.json",
                    "checkpoints/step-000003/model.safetensors",
                ],
            ),
            _ => {}
        }
        let run = Pretraining::new().begin(&parts, true).unwrap();
        assert_eq!(run.iteration(), 0);
        finish(run);
        for name in [
            "model/model.safetensors",
            "average/model.safetensors",
            STATE,
        ] {
            assert!(read(&whole, name) == read(&parts, name), "{stop}: {name}");
        }
    }
}

/// A folder without a run, but with files of another program or of a run whose state is gone.
#[test]
fn resume_keeps_other_files() {
    let missing = |result: Result<()>, name: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error}");
        assert!(error.to_string().contains("no run to resume"), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    for name in ["adapters.safetensors", "notes.txt", "model/config.json"] {
        let folder = TempDir::new();
        leave(&folder, &["run.lock", name]);
        let top = name.split('/').next().unwrap();
        missing(Tuning::new().begin(&folder, true).map(drop), top);
        missing(Pretraining::new().begin(&folder, true).map(drop), top);
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"half");
    }
    // Names of a run's first files, without the lock of a run.
    for name in ["metrics.jsonl", "best/adapter_config.json"] {
        let folder = TempDir::new();
        leave(&folder, &[name]);
        let error = Tuning::new().begin(&folder, true).map(drop).unwrap_err();
        assert!(error.to_string().contains("not of a run"), "{error}");
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"half");
    }
    let folder = TempDir::new();
    let names = [
        "checkpoints/step-000002/config.json",
        "checkpoints/step-000004/config.json",
    ];
    leave(&folder, &["run.lock"]);
    leave(&folder, &names);
    let result = Pretraining::new().begin(&folder, true).map(drop);
    missing(result, "several checkpoints");
    assert!(names.iter().all(|name| folder.join(name).is_file()));
}

#[test]
fn patience_does_not_train_on_resume() {
    let folder = TempDir::new();
    let mut tuning = Tuning::new();
    tuning.options.trainer.schedule = Schedule {
        learning_rate: 0.0,
        ..Schedule::default()
    };
    tuning.options.iters = 50;
    tuning.options.patience = Some(2);
    finish(tuning.begin(&folder, false).unwrap());
    let (state, metrics) = (folder.join(STATE), folder.join("metrics.jsonl"));
    let read = || (fs::read(&state).unwrap(), fs::read(&metrics).unwrap());
    let before = read();
    for _ in 0..2 {
        let events = finish(tuning.begin(&folder, true).unwrap());
        assert!(
            matches!(
                events[..],
                [FinetuneEvent::Finished {
                    iteration: 6,
                    reason: FinetuneEnd::Patience,
                    ..
                }]
            ),
            "{events:?}"
        );
        assert!(read() == before);
    }
    // More patience continues.
    tuning.options.patience = Some(3);
    let events = finish(tuning.begin(&folder, true).unwrap());
    let steps = events.iter();
    let steps = steps.filter(|event| matches!(event, FinetuneEvent::Step { .. }));
    assert_eq!(steps.count(), 3);
}

/// mlx-lm's order validates before a step: a run that ends after this validation repeats it.
#[test]
fn repeated_validation_has_one_line() {
    let folder = TempDir::new();
    let mut tuning = Tuning::new();
    tuning.options.mlx_lm_compat = true;
    (tuning.options.save_every, tuning.options.batch_size) = (2, 2);
    let mut run = tuning.begin(&folder, false).unwrap();
    let saved =
        |event: &Result<FinetuneEvent>| matches!(event, Ok(FinetuneEvent::Saved { iteration: 2 }));
    assert!(run.by_ref().any(|event| saved(&event)));
    let next = run.next().unwrap().unwrap();
    assert!(matches!(
        next,
        FinetuneEvent::Validation { iteration: 2, .. }
    ));
    drop(run);
    finish(tuning.begin(&folder, true).unwrap());
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        (
            line["event"].as_str().unwrap().to_owned(),
            line["iteration"].as_u64().unwrap(),
        )
    });
    let of = |name: &str| -> Vec<u64> {
        let lines = lines.clone().filter(|(event, _)| event == name);
        lines.map(|(_, iteration)| iteration).collect()
    };
    assert_eq!(of("validation"), [0, 2, 5]);
    assert_eq!(of("step"), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn refuses_a_folder_in_place_of_a_file_before_the_first_step() {
    let obstacle = |result: Result<()>, name: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Destination { .. }), "{error}");
        assert!(error.path().unwrap().ends_with(name), "{error}");
    };
    for name in ["adapters.safetensors", "adapter_config.json", STATE] {
        let folder = TempDir::new();
        fs::create_dir(folder.join(name)).unwrap();
        obstacle(Tuning::new().begin(&folder, false).map(drop), name);
        assert_eq!(folder.names(), [name]);
    }
    let folder = TempDir::new();
    leave(&folder, &["best"]);
    obstacle(Tuning::new().begin(&folder, false).map(drop), "best");
    // A resumed run, too.
    let folder = TempDir::new();
    tuned_to_two(&folder);
    leave(&folder, &["best"]);
    obstacle(Tuning::new().begin(&folder, true).map(drop), "best");
    for name in ["checkpoints", "model", "average"] {
        let folder = TempDir::new();
        leave(&folder, &[name]);
        obstacle(Pretraining::new().begin(&folder, false).map(drop), name);
        assert_eq!(folder.names(), [name]);
    }
}

/// Until now, an interrupted run without a step had no state to resume from.
#[test]
fn cancelled_before_the_first_step_can_be_resumed() {
    let (tuned, trained) = (TempDir::new(), TempDir::new());
    let run = Tuning::new().begin(&tuned, false).unwrap();
    run.cancel_handle().cancel();
    finish(run);
    finish(Tuning::new().begin(&tuned, true).unwrap());
    let run = Pretraining::new().begin(&trained, false).unwrap();
    run.cancel_handle().cancel();
    finish(run);
    let run = Pretraining::new().begin(&trained, true).unwrap();
    stop_at_two(run, |event| matches!(event, PretrainEvent::Saved { .. }));
}
