//! Options that may change when a run is resumed.

use std::fs;

use openelm_core::{
    Dtype, Result,
    adapter::Keys,
    finetune::FinetuneEvent,
    train::{OptimizerKind, Schedule, ScheduleKind},
};
use openelm_testing::TempDir;

use crate::tiny::{Edit, Pretraining, Tuning, difference, pretrained_to_two, tuned_to_two};

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
fn other_validation_resets_the_best() {
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
fn finetuning_rejects_options_that_change_the_weights() {
    let folder = TempDir::new();
    tuned_to_two(&folder);
    let edits: [(Edit<Tuning>, &str); 13] = [
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
            |run| run.options.trainer.optimizer.kind = OptimizerKind::Lion,
            "optimizer: expected adam, found lion",
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
        (|run| run.model = 4, "model: expected float32 with hash "),
    ];
    for (edit, expected) in edits {
        let mut changed = Tuning::new();
        edit(&mut changed);
        let found = difference(&changed.begin(&folder, true).unwrap_err());
        assert!(found.starts_with(expected), "{found}");
    }
    // All differences at once, by name.
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
fn pretraining_rejects_options_that_change_the_weights() {
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

/// The same rule for both trainers: the number of iterations may change if no schedule depends on
/// it.
#[test]
fn run_can_be_extended_unless_the_schedule_has_its_length() {
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
