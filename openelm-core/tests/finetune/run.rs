//! Whole runs.

use openelm_core::{
    Error,
    adapter::{Adapter, Keys, LoraOptions},
    dataset::Example,
    finetune::{Finetune, FinetuneEnd, FinetuneEvent, FinetuneOptions, TrainingData},
    train::{Optimizer, OptimizerKind, Schedule, TrainerOptions},
};
use openelm_testing::TempDir;

use crate::tiny::{lora, model};

fn rows(count: u32) -> TrainingData {
    let row = |i: u32| Example {
        tokens: (0..4 + i % 5).map(|k| 1 + (i + 3 * k) % 40).collect(),
        first_target: 1,
    };
    TrainingData::Examples((0..count).map(row).collect())
}

fn finetune(folder: &TempDir, options: FinetuneOptions) -> openelm_core::Result<Finetune> {
    let adapter = lora(Keys::AllProjections, LoraOptions::default());
    Finetune::new(&model(), adapter, rows(10), Some(rows(4)), folder, options)
}

#[test]
fn patience_ends_the_run() {
    let folder = TempDir::new();
    let options = FinetuneOptions {
        trainer: TrainerOptions {
            schedule: Schedule {
                learning_rate: 0.0,
                ..Schedule::default()
            },
            ..TrainerOptions::default()
        },
        iters: 50,
        steps_per_eval: 2,
        patience: Some(3),
        ..FinetuneOptions::default()
    };
    let events: Vec<FinetuneEvent> = finetune(&folder, options)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let Some(FinetuneEvent::Finished {
        iteration, reason, ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!((*iteration, *reason), (6, FinetuneEnd::Patience));
}

#[test]
fn diverged_run_keeps_the_last_checkpoint() {
    let folder = TempDir::new();
    let options = FinetuneOptions {
        trainer: TrainerOptions {
            schedule: Schedule {
                warmup: 12,
                learning_rate: 1e32,
                ..Schedule::default()
            },
            optimizer: Optimizer::new(OptimizerKind::Sgd),
            ..TrainerOptions::default()
        },
        save_every: 1,
        iters: 50,
        ..FinetuneOptions::default()
    };
    let mut run = finetune(&folder, options).unwrap();
    let mut saved = 0;
    let error = loop {
        match run.next().expect("it diverges") {
            Ok(FinetuneEvent::Saved { iteration }) => saved = iteration,
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(run.next().is_none());
    assert!(saved >= 1);
    Adapter::load(&folder).unwrap();
}
