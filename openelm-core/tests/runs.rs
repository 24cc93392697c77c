//! Runs of fine-tuning and pre-training in their folders: what may change when one is resumed, and
//! who may train where.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{collections::HashMap, fs, path::Path};

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, Model, Result,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    corpus::Sequence,
    dataset::Example,
    finetune::{Finetune, FinetuneEvent, FinetuneOptions, TrainingData},
    internal::random_weights,
    pretrain::{MemorySource, Pretrain, PretrainEvent, PretrainOptions, Recipe, Validation},
    train::{Schedule, ScheduleKind},
};
use openelm_testing::TempDir;
use serde_json::{Value, json};

const STATE: &str = "training_state.safetensors";

fn config() -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        max_context_length: 64,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

fn model() -> Model {
    let weights = random_weights(&config(), Dtype::Float32, 3).unwrap();
    Model::new(config(), weights, Dtype::Float32).unwrap()
}

fn rows(count: u32) -> TrainingData {
    let row = |i: u32| Example {
        tokens: (0..4 + i % 5).map(|k| 1 + (i + 3 * k) % 40).collect(),
        first_target: 1,
    };
    TrainingData::Examples((0..count).map(row).collect())
}

/// A change of a run's arguments.
type Edit<T> = fn(&mut T);

#[derive(Clone)]
struct Tuning {
    options: FinetuneOptions,
    lora: LoraOptions,
    keys: Keys,
    train: u32,
    valid: u32,
}

impl Tuning {
    fn new() -> Self {
        Self {
            options: FinetuneOptions {
                iters: 6,
                steps_per_eval: 3,
                save_every: 2,
                ..FinetuneOptions::default()
            },
            lora: LoraOptions {
                rank: 3,
                ..LoraOptions::default()
            },
            keys: Keys::AllProjections,
            train: 10,
            valid: 4,
        }
    }

    fn begin(&self, folder: &TempDir, resume: bool) -> Result<Finetune> {
        let targets = TargetModules {
            num_layers: None,
            keys: self.keys.clone(),
        };
        let model = model();
        let adapter = Adapter::lora(&model, &targets, &self.lora, 5).unwrap();
        let begin = if resume {
            Finetune::resume
        } else {
            Finetune::new
        };
        let (train, valid) = (rows(self.train), Some(rows(self.valid)));
        begin(&model, adapter, train, valid, folder, self.options.clone())
    }
}

#[derive(Clone)]
struct Pretraining {
    options: PretrainOptions,
    documents: u32,
    valid: Option<Validation>,
}

impl Pretraining {
    fn new() -> Self {
        let recipe = Recipe {
            iters: 6,
            learning_rate: 2e-3,
            warmup: 2,
        };
        Self {
            options: PretrainOptions {
                batch_size: 4,
                micro_batch_size: 2,
                save_every: 2,
                keep_checkpoints: 3,
                ..PretrainOptions::new(recipe)
            },
            documents: 40,
            valid: None,
        }
    }

    fn begin(&self, folder: &TempDir, resume: bool) -> Result<Pretrain> {
        let sequences = (0..self.documents).map(|i| Sequence {
            tokens: (0..12).map(|k| 1 + (i + 7 * k) % 40).collect(),
            document_starts: vec![0],
        });
        let source = Box::new(MemorySource::new(sequences.collect(), (0, 1)));
        let begin = if resume {
            Pretrain::resume
        } else {
            Pretrain::new
        };
        begin(
            config(),
            source,
            self.valid.clone(),
            folder,
            self.options.clone(),
            None,
        )
    }
}

/// Takes events up to the save after the second step, and leaves the run.
fn stop_at_two<E>(run: impl Iterator<Item = Result<E>>, is_save: impl Fn(&E) -> bool) {
    let mut run = run.map(Result::unwrap);
    assert!(run.any(|event| is_save(&event)));
}

fn tuned_to_two(folder: &TempDir) {
    let run = Tuning::new().begin(folder, false).unwrap();
    stop_at_two(run, |event| matches!(event, FinetuneEvent::Saved { .. }));
}

fn pretrained_to_two(folder: &TempDir) {
    let run = Pretraining::new().begin(folder, false).unwrap();
    stop_at_two(run, |event| matches!(event, PretrainEvent::Saved { .. }));
}

/// The only difference that `error` lists.
fn difference(error: &Error) -> String {
    let Error::OtherRun { path, differences } = error else {
        panic!("{error}");
    };
    assert!(path.ends_with(STATE), "{error}");
    let [difference] = &differences[..] else {
        panic!("{error}");
    };
    difference.to_string()
}

#[test]
fn finetuning_resumes_with_options_that_do_not_change_the_weights() {
    let whole = TempDir::new();
    let run = Tuning::new().begin(&whole, false).unwrap();
    run.map(Result::unwrap).for_each(drop);
    let read = |folder: &TempDir| fs::read(folder.join("adapters.safetensors")).unwrap();

    let edits: [(&str, Edit<Tuning>); 6] = [
        ("save_every", |run| run.options.save_every = 5),
        ("patience", |run| run.options.patience = Some(9)),
        ("steps_per_eval", |run| run.options.steps_per_eval = 2),
        ("val_batches", |run| run.options.val_batches = Some(1)),
        ("valid", |run| run.valid = 5),
        ("grad_checkpoint", |run| {
            run.options.trainer.grad_checkpoint = true;
        }),
    ];
    for (name, edit) in edits {
        let parts = TempDir::new();
        tuned_to_two(&parts);
        let mut changed = Tuning::new();
        edit(&mut changed);
        let run = changed.begin(&parts, true).unwrap();
        run.map(Result::unwrap).for_each(drop);
        assert_eq!(read(&whole), read(&parts), "{name}");
    }
}

#[test]
fn pretraining_resumes_with_options_that_do_not_change_the_weights() {
    let whole = TempDir::new();
    let run = Pretraining::new().begin(&whole, false).unwrap();
    run.map(Result::unwrap).for_each(drop);
    let read = |folder: &TempDir| fs::read(folder.join("model/model.safetensors")).unwrap();

    let edits: [(&str, Edit<Pretraining>); 4] = [
        ("save_every", |run| run.options.save_every = 5),
        ("keep_checkpoints", |run| run.options.keep_checkpoints = 4),
        ("steps_per_eval", |run| run.options.steps_per_eval = 2),
        ("grad_checkpoint", |run| {
            run.options.trainer.grad_checkpoint = true;
        }),
    ];
    for (name, edit) in edits {
        let parts = TempDir::new();
        pretrained_to_two(&parts);
        let mut changed = Pretraining::new();
        edit(&mut changed);
        let run = changed.begin(&parts, true).unwrap();
        run.map(Result::unwrap).for_each(drop);
        assert_eq!(read(&whole), read(&parts), "{name}");
    }
}

#[test]
fn another_validation_looks_for_the_best_anew() {
    let folder = TempDir::new();
    tuned_to_two(&folder);
    let best_after = |run: Tuning| {
        let events = run.begin(&folder, true).unwrap().map(Result::unwrap);
        let mut found = events.filter_map(|event| match event {
            FinetuneEvent::Validation { best, .. } => Some(best),
            _ => None,
        });
        found.next().unwrap()
    };
    let mut run = Tuning::new();
    run.valid = 5;
    assert!(best_after(run));
}

#[test]
fn finetuning_refuses_options_that_change_the_weights() {
    let folder = TempDir::new();
    tuned_to_two(&folder);
    let edits: [(Edit<Tuning>, &str); 12] = [
        (
            |run| run.options.trainer.schedule.learning_rate = 2e-5,
            "learning_rate: expected 0.00001, found 0.00002",
        ),
        (
            |run| run.options.batch_size = 5,
            "batch_size: expected 4, found 5",
        ),
        (
            |run| run.options.max_seq_length = 7,
            "max_seq_length: expected 2048, found 7",
        ),
        (
            |run| run.options.trainer.optimizer.weight_decay = 0.1,
            "weight_decay: expected 0.0, found 0.1",
        ),
        (
            |run| run.options.trainer.grad_accumulation_steps = 2,
            "grad_accumulation_steps: expected 1, found 2",
        ),
        (
            |run| run.options.trainer.clip_norm = Some(0.3),
            "clip_norm: expected none, found 0.3",
        ),
        (
            |run| run.options.trainer.seed = 3,
            "seed: expected 0, found 3",
        ),
        (|run| run.lora.rank = 4, "rank: expected 3, found 4"),
        (
            |run| run.lora.scale = 2.5,
            "scale: expected 20.0, found 2.5",
        ),
        (
            |run| run.lora.dropout = 0.1,
            "dropout: expected 0.0, found 0.1",
        ),
        (
            |run| run.keys = Keys::Names(vec!["proj_1".into()]),
            "keys: expected attn.out_proj,attn.qkv_proj,ffn.proj_1,ffn.proj_2, found ffn.proj_1",
        ),
        (|run| run.train = 11, "data: expected "),
    ];
    for (edit, expected) in edits {
        let mut changed = Tuning::new();
        edit(&mut changed);
        let found = difference(&changed.begin(&folder, true).unwrap_err());
        assert!(found.starts_with(expected), "{found}");
    }
    // All of them at once, by name.
    let mut changed = Tuning::new();
    changed.lora.rank = 4;
    changed.options.batch_size = 5;
    let error = changed.begin(&folder, true).unwrap_err().to_string();
    assert!(
        error.contains("batch_size: expected 4, found 5; rank: expected 3, found 4"),
        "{error}"
    );
}

#[test]
fn pretraining_refuses_options_that_change_the_weights() {
    let folder = TempDir::new();
    pretrained_to_two(&folder);
    let edits: [(Edit<Pretraining>, &str); 6] = [
        (
            |run| run.options.trainer.schedule.learning_rate = 3e-3,
            "learning_rate: expected 0.002, found 0.003",
        ),
        (
            |run| run.options.batch_size = 8,
            "batch_size: expected 4, found 8",
        ),
        (|run| run.options.seed = 3, "seed: expected 0, found 3"),
        (
            |run| run.options.dtype = Some(Dtype::Bfloat16),
            "dtype: expected float32, found bfloat16",
        ),
        (
            |run| run.options.trainer.ema_decay = Some(0.9),
            "ema_decay: expected none, found 0.9",
        ),
        (|run| run.documents = 41, "data: expected "),
    ];
    for (edit, expected) in edits {
        let mut changed = Pretraining::new();
        edit(&mut changed);
        let found = difference(&changed.begin(&folder, true).unwrap_err());
        assert!(found.starts_with(expected), "{found}");
    }
}

/// One rule for both trainers: the length may change where no schedule follows from it.
#[test]
fn a_run_is_made_longer_unless_its_schedule_has_the_length() {
    let cosine = |steps: u64| Schedule {
        kind: ScheduleKind::Cosine { end: 0.0, steps },
        ..Schedule::default()
    };
    let schedules: [fn(u64) -> Schedule; 2] = [|_| Schedule::default(), cosine];
    for (nth, schedule) in schedules.into_iter().enumerate() {
        let (tuned, trained) = (TempDir::new(), TempDir::new());
        let tuning = |iters: u64| {
            let mut run = Tuning::new();
            run.options.iters = iters;
            run.options.trainer.schedule = schedule(iters);
            run
        };
        let pretraining = |iters: u64| {
            let mut run = Pretraining::new();
            run.options.iters = iters;
            run.options.trainer.schedule = schedule(iters);
            run
        };
        let run = tuning(2).begin(&tuned, false).unwrap();
        run.map(Result::unwrap).for_each(drop);
        let run = pretraining(2).begin(&trained, false).unwrap();
        run.map(Result::unwrap).for_each(drop);
        let longer = [
            tuning(4).begin(&tuned, true).map(|run| run.iteration()),
            pretraining(4)
                .begin(&trained, true)
                .map(|run| run.iteration()),
        ];
        for result in longer {
            if nth == 0 {
                assert_eq!(result.unwrap(), 2);
            } else {
                let found = difference(&result.unwrap_err());
                assert_eq!(found, "schedule_steps: expected 2, found 4");
            }
        }
    }
}

#[test]
fn a_second_run_in_a_folder_is_refused_while_the_first_goes_on() {
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
    // The lock ends with the run, not with its value.
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

/// Puts `caller` in the place of the run's own part of the state.
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

/// Version 0.1 before the resume key compared the `Debug` text of its options.
#[test]
fn a_state_of_an_older_version_says_how_to_go_on() {
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
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("an older version saved this run"), "{text}");
    assert!(text.contains("openelm finetune --start-from"), "{text}");
    // Its adapter serves.
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
    assert!(text.contains("openelm pretrain --from"), "{text}");
    Config::load(folder.join("checkpoints/step-000002")).unwrap();
}

#[test]
fn lines_of_metrics_are_the_events_as_json() {
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
