//! Pauses within the units of a run: a thread whose gate is closed rests at each of them.

use std::{cell::Cell, rc::Rc};

use openelm_core::{
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    dataset::{Example, PreferencePair},
    finetune::{Finetune, FinetuneEvent, FinetuneOptions, TrainingData},
    internal::{Batch, Gate, Padding},
    train::{Trainer, TrainerOptions},
};
use openelm_testing::TempDir;

use crate::tiny::{config, lora, model};

/// Counts the rests of this thread at a closed gate, each of which it gives up at once.
struct Rests(Rc<Cell<usize>>);

impl Rests {
    fn count() -> Self {
        let gate = Gate::default();
        gate.close();
        let count = Rc::new(Cell::new(0));
        let counted = Rc::clone(&count);
        let give_up = move || {
            counted.set(counted.get() + 1);
            true
        };
        gate.attach(give_up, || ());
        Self(count)
    }

    fn of<T>(&self, work: impl FnOnce() -> T) -> (usize, T) {
        self.0.set(0);
        let result = work();
        (self.0.get(), result)
    }
}

fn example(i: u32) -> Example {
    Example {
        tokens: (0..5 + i % 3).map(|k| 1 + (i + 3 * k) % 40).collect(),
        first_target: 1,
    }
}

fn batch(i: u32) -> Batch {
    Batch::new(&[&example(i)], Padding::default())
}

fn trainer(num_layers: Option<usize>, grad_checkpoint: bool) -> Trainer {
    let targets = TargetModules {
        num_layers,
        keys: Keys::AllProjections,
    };
    let adapter = Adapter::lora(&model(), &targets, &LoraOptions::default(), 5).unwrap();
    let options = TrainerOptions {
        grad_checkpoint,
        ..TrainerOptions::default()
    };
    Trainer::new(&model(), adapter, options).unwrap()
}

#[test]
fn checkpointed_step_rests_between_layers() {
    let layers = config().num_transformer_layers();
    let rests = Rests::count();
    for (trained, checkpoint, expected) in [
        (None, false, 0),
        // After each layer's input, after the head, and after each layer's gradients.
        (None, true, layers + 1 + layers),
        (Some(1), true, layers + 1 + 1),
    ] {
        let mut trainer = trainer(trained, checkpoint);
        let (found, step) = rests.of(|| trainer.step(&batch(0)).unwrap());
        assert_eq!(found, expected, "{trained:?} {checkpoint}");
        assert!(step.loss.is_finite());
    }
}

#[test]
fn rests_between_batches() {
    let batches = [batch(0), batch(1), batch(2)];
    let mut trainer = trainer(None, false);
    let rests = Rests::count();
    assert_eq!(rests.of(|| trainer.evaluate(&batches).unwrap()).0, 3);
    let (found, _) = rests.of(|| trainer.update(&batches, None).unwrap());
    assert_eq!(found, 3, "micro-batches of an update");
}

#[test]
fn run_rests_between_its_parts() {
    let folder = TempDir::new();
    let options = FinetuneOptions {
        batch_size: 2,
        iters: 2,
        steps_per_eval: 2,
        ..FinetuneOptions::default()
    };
    let adapter = || lora(Keys::AllProjections, LoraOptions::default());
    let rows = |count| TrainingData::Examples((0..count).map(example).collect());
    let rests = Rests::count();
    let mut run = Finetune::new(
        &model(),
        adapter(),
        rows(6),
        Some(rows(3)),
        folder.join("rows"),
        options.clone(),
    )
    .unwrap();
    let (found, event) = rests.of(|| run.next().unwrap().unwrap());
    assert!(matches!(event, FinetuneEvent::Validation { .. }));
    assert_eq!(found, 2 + 1, "two batches of validation, and the step");
    // Two steps, a validation, a save and the end.
    let (found, rest) = rests.of(|| run.map(Result::unwrap).count());
    assert_eq!(
        (found, rest),
        (2, 5),
        "the batches of the second validation"
    );

    let pair = |i| PreferencePair {
        chosen: example(i),
        rejected: example(i + 1),
    };
    let pairs = TrainingData::Pairs((0..5).map(pair).collect());
    let folder = folder.join("pairs");
    let (found, run) =
        rests.of(|| Finetune::new(&model(), adapter(), pairs, None, folder, options));
    assert!(run.is_ok());
    assert_eq!(found, 3, "the batches of the reference model");
}
