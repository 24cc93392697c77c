//! A run's folder: lock, state and metrics.

use std::{collections::HashMap, fs, path::Path};

use mlx_rs::Array;
use openelm_core::{
    Config, Error, ErrorKind, Result,
    adapter::{Adapter, LoraOptions, TargetModules},
    dataset::{Example, PreferencePair},
    finetune::{Finetune, FinetuneEvent, FinetuneOptions, TrainingData},
    pretrain::PretrainEvent,
};
use openelm_testing::TempDir;
use serde_json::{Value, json};

use crate::tiny::{
    Pretraining, STATE, Tuning, model, pretrained_to_two, stop_at_two, tuned_to_two,
};

#[test]
fn rejects_second_run_in_a_folder() {
    let (tuned, trained) = (TempDir::new(), TempDir::new());
    let holder = format!("process {} is training here", std::process::id());
    let refused = |result: Result<()>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Destination { .. }), "{error}");
        assert!(error.to_string().contains(&holder), "{error}");
    };
    let mut run = Tuning::new().begin(&tuned, false).unwrap();
    refused(Tuning::new().begin(&tuned, false).map(drop));
    let saved =
        |event: Result<FinetuneEvent>| matches!(event.unwrap(), FinetuneEvent::Saved { .. });
    assert!(run.any(saved));
    refused(Tuning::new().begin(&tuned, true).map(drop));
    // The lock ends with the run, before the value is dropped.
    run.by_ref().map(Result::unwrap).for_each(drop);
    Tuning::new().begin(&tuned, true).unwrap();

    let run = Pretraining::new().begin(&trained, false).unwrap();
    refused(Pretraining::new().begin(&trained, false).map(drop));
    stop_at_two(run, |event| matches!(event, PretrainEvent::Saved { .. }));
    let run = Pretraining::new().begin(&trained, true).unwrap();
    refused(Pretraining::new().begin(&trained, true).map(drop));
    drop(run);
    Pretraining::new().begin(&trained, true).unwrap();
}

/// Replaces the run's own part of the state with `caller`.
fn rewrite_state(folder: &Path, caller: &Value) {
    let path = folder.join(STATE);
    let tensors = Array::load_safetensors(&path).unwrap();
    for array in tensors.values() {
        array.eval().unwrap();
    }
    let counters = json!({ "iteration": 2, "updates": 2, "caller": caller }).to_string();
    let metadata = HashMap::from([("training_state".to_owned(), counters)]);
    let tensors = tensors.iter().map(|(name, array)| (name.as_str(), array));
    Array::save_safetensors(tensors, Some(&metadata), &path).unwrap();
}

/// Before the resume key, version 0.1 compared the `Debug` text of its options.
#[test]
fn older_state_reports_how_to_continue() {
    let folder = TempDir::new();
    tuned_to_two(&folder);
    let options = "FinetuneOptions { trainer: TrainerOptions { optimizer: Optimizer { kind: Adam, \
         betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, momentum: 0.0, bias_correction: false, \
         decay_vectors: false }, schedule: Schedule { kind: Constant, learning_rate: 1e-5, warmup: \
         0, warmup_init: 0.0 }, grad_accumulation_steps: 1, clip_norm: None, grad_checkpoint: \
         false, z_loss: 0.0, label_smoothing: 0.0, ema_decay: None, seed: 0 }, iters: 0, \
         batch_size: 4, max_seq_length: 2048, steps_per_eval: 3, val_batches: Some(25), \
         save_every: 2, patience: None, preference: (Sigmoid, 0.01), mlx_lm_compat: false }";
    let caller = json!({
        "options": options,
        "data": "c0d7242aa7583de5",
        "trained_tokens": 151,
        "best": [4, 5.485194969177246],
        "since_best": 0,
    });
    rewrite_state(&folder, &caller);
    let error = Tuning::new().begin(&folder, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint, "{error}");
    let text = error.to_string();
    assert!(text.contains("an older version saved this run"), "{text}");
    assert!(text.contains("start a new run in another folder"), "{text}");
    // The adapter is still usable.
    Adapter::load(&*folder).unwrap();

    let folder = TempDir::new();
    pretrained_to_two(&folder);
    let options = "Optimizer { kind: AdamW, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, \
         momentum: 0.0, bias_correction: true, decay_vectors: false }, Schedule { kind: CoreNet { \
         end: 0.0002, max_iterations: 6 }, learning_rate: 0.002, warmup: 2, warmup_init: 1e-6 }, \
         clip_norm: Some(1.0), z_loss: 0.0001, label_smoothing: 0.0, ema_decay: None, steps: 6, \
         batch_size: 4, seed: 0, dtype: None";
    let caller = json!({
        "options": options,
        "config": { "model_type": "openelm", "model_dim": 64 },
        "tokenizer": "",
        "source": { "given": 8, "data": "0000000000000000" },
        "trained_tokens": 358,
        "best": null,
    });
    rewrite_state(&folder, &caller);
    let error = Pretraining::new().begin(&folder, true).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("from the last of its checkpoints"), "{text}");
    Config::load(folder.join("checkpoints/step-000002")).unwrap();
}

#[test]
fn metrics_are_the_events_as_json() {
    let folder = TempDir::new();
    let run = Tuning::new().begin(&folder, false).unwrap();
    let events: Vec<Value> = run.map(|event| event.unwrap().to_json()).collect();
    let measured =
        |event: &&Value| ["step", "validation"].contains(&event["event"].as_str().unwrap());
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines,
        events.iter().filter(measured).cloned().collect::<Vec<_>>()
    );
    assert!(lines[1]["peak_memory_bytes"].is_u64(), "{text}");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["reason"], &last["best_iteration"]),
        (&"finished".into(), &"iterations".into(), &6.into())
    );
}

fn pairs() -> TrainingData {
    let pair = |i: u32| {
        let answer = |last: u32| Example {
            tokens: vec![1, 2 + i, 3, last],
            first_target: 2,
        };
        PreferencePair {
            chosen: answer(7),
            rejected: answer(9 + i),
        }
    };
    TrainingData::Pairs((0..3).map(pair).collect())
}

fn pair_options() -> FinetuneOptions {
    FinetuneOptions {
        iters: 1,
        batch_size: 2,
        ..FinetuneOptions::default()
    }
}

/// A run that ended before its first save leaves its reference file.
#[test]
fn new_run_measures_its_own_reference() {
    let reference = |seed: u64, folder: &TempDir| {
        let model = model(seed);
        let targets = TargetModules::all_layers();
        let adapter = Adapter::lora(&model, &targets, &LoraOptions::default(), 5).unwrap();
        let run = Finetune::new(&model, adapter, pairs(), None, folder, pair_options());
        drop(run.unwrap());
        fs::read(folder.join("reference.safetensors")).unwrap()
    };
    let (used, fresh) = (TempDir::new(), TempDir::new());
    let other = reference(3, &used);
    let again = reference(4, &used);
    assert_eq!(again, reference(4, &fresh));
    assert_ne!(again, other);
}

#[test]
fn files_of_the_user_stay_in_a_run() {
    let folder = TempDir::new();
    let mut pretraining = Pretraining::new();
    pretraining.options.keep_checkpoints = 1;
    let mut run = pretraining.begin(&folder, false).unwrap();
    let is_save =
        |event: Result<PretrainEvent>| matches!(event.unwrap(), PretrainEvent::Saved { .. });
    assert!(run.any(is_save));
    let notes = ["checkpoints/step-000002/notes.txt", "model/notes.txt"];
    for name in notes {
        folder.write(name, "notes");
    }
    run.by_ref().map(Result::unwrap).for_each(drop);
    for name in notes {
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"notes");
    }
    assert!(folder.join("model/config.json").is_file());
    assert!(folder.join("checkpoints/step-000006/config.json").is_file());
    assert!(!folder.join("checkpoints/step-000004").exists());
}

/// A run that is killed between its last save and its end leaves them.
#[test]
fn resumed_run_that_is_complete_removes_old_checkpoints() {
    let folder = TempDir::new();
    let begin = |resume: bool| {
        let mut pretraining = Pretraining::new();
        pretraining.options.keep_checkpoints = 1;
        let run = pretraining.begin(&folder, resume).unwrap();
        run.map(Result::unwrap).for_each(drop);
    };
    begin(false);
    let last = folder.join("checkpoints/step-000006");
    let old = folder.join("checkpoints/step-000004");
    fs::create_dir(&old).unwrap();
    for file in fs::read_dir(&last).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), old.join(file.file_name())).unwrap();
    }
    begin(true);
    assert!(last.join("config.json").is_file());
    assert!(!old.exists());
}

/// A version that deleted the files of a checkpoint one by one left such a folder.
#[test]
fn incomplete_checkpoint_is_removed_and_not_averaged() {
    let folder = TempDir::new();
    pretrained_to_two(&folder);
    fs::remove_file(folder.join("checkpoints/step-000002/config.json")).unwrap();
    folder.write("checkpoints/.step-000001.openelm-removed/config.json", "");
    let run = Pretraining::new().begin(&folder, true).unwrap();
    run.map(Result::unwrap).for_each(drop);
    let mut names: Vec<_> = fs::read_dir(folder.join("checkpoints")).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let names: Vec<_> = names
        .into_iter()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["step-000004", "step-000006"]);
    assert!(folder.join("average/config.json").is_file());
}

/// The adapter before the first step is a part of the reference model.
#[test]
fn preferences_resume_from_the_same_adapter() {
    let folder = TempDir::new();
    let model = model(3);
    let new = || {
        let targets = TargetModules::all_layers();
        Adapter::lora(&model, &targets, &LoraOptions::default(), 5).unwrap()
    };
    let begin = |adapter: Adapter, folder: &TempDir, resume: bool| {
        let begin = if resume {
            Finetune::resume
        } else {
            Finetune::new
        };
        begin(&model, adapter, pairs(), None, folder, pair_options())
    };
    begin(new(), &folder, false).unwrap().for_each(drop);
    begin(new(), &folder, true).unwrap();
    // Two runs, the second from the result of the first.
    let (second, third) = (TempDir::new(), TempDir::new());
    let trained = |folder: &TempDir| Adapter::load(folder).unwrap();
    begin(trained(&folder), &second, false)
        .unwrap()
        .for_each(drop);
    begin(trained(&second), &third, false)
        .unwrap()
        .for_each(drop);
    begin(trained(&second), &third, true).unwrap();
    let error = begin(trained(&folder), &third, true).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::OtherRun { .. }), "{text}");
    let part = "start_from: expected weights with hash ";
    assert!(text.contains(part), "{text}");

    // The file of an older version does not identify the adapter.
    let path = third.join("reference.safetensors");
    let tensors = Array::load_safetensors(&path).unwrap();
    for array in tensors.values() {
        array.eval().unwrap();
    }
    let tensors = tensors.iter().map(|(name, array)| (name.as_str(), array));
    Array::save_safetensors(tensors, None, &path).unwrap();
    begin(trained(&folder), &third, true).unwrap();
}

#[test]
fn resume_without_the_adapter_to_start_from_names_it() {
    let (first, second) = (TempDir::new(), TempDir::new());
    let model = model(3);
    let adapter = |rank| {
        let options = LoraOptions {
            rank,
            ..LoraOptions::default()
        };
        Adapter::lora(&model, &TargetModules::all_layers(), &options, 5).unwrap()
    };
    let options = FinetuneOptions {
        iters: 1,
        ..FinetuneOptions::default()
    };
    let train = || crate::tiny::rows(8);
    let begin = |adapter, folder: &TempDir| {
        Finetune::new(&model, adapter, train(), None, folder, options.clone())
    };
    begin(adapter(3), &first).unwrap().for_each(drop);
    let start = Adapter::load(&*first).unwrap();
    begin(start, &second).unwrap().for_each(drop);
    let resume = |adapter| {
        let run = Finetune::resume(&model, adapter, train(), None, &second, options.clone());
        run.map(drop)
    };
    let text = resume(adapter(4)).unwrap_err().to_string();
    let part = "start_from: expected an adapter, found none; rank: expected 3, found 4";
    assert!(text.contains(part), "{text}");
    resume(Adapter::load(&*first).unwrap()).unwrap();
}
