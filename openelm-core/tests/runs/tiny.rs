//! Fine-tuning and pre-training of a tiny model for six steps.

use openelm_core::{
    Config, Dtype, Error, Model, Result,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    corpus::Sequence,
    dataset::Example,
    finetune::{Finetune, FinetuneEvent, FinetuneOptions, TrainingData},
    internal::random_weights,
    pretrain::{MemorySource, Pretrain, PretrainEvent, PretrainOptions, Recipe, Validation},
};
use openelm_testing::TempDir;

pub(crate) const STATE: &str = "training_state.safetensors";

pub(crate) fn config() -> Config {
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

pub(crate) fn model(seed: u64) -> Model {
    let weights = random_weights(&config(), Dtype::Float32, seed).unwrap();
    Model::new(config(), weights, Dtype::Float32).unwrap()
}

pub(crate) fn rows(count: u32) -> TrainingData {
    let row = |i: u32| Example {
        tokens: (0..4 + i % 5).map(|k| 1 + (i + 3 * k) % 40).collect(),
        first_target: 1,
    };
    TrainingData::Examples((0..count).map(row).collect())
}

/// A change of a run's arguments.
pub(crate) type Edit<T> = fn(&mut T);

#[derive(Clone)]
pub(crate) struct Tuning {
    pub(crate) options: FinetuneOptions,
    pub(crate) lora: LoraOptions,
    pub(crate) keys: Keys,
    pub(crate) train: u32,
    pub(crate) valid: u32,
    /// Seed of the base model's weights.
    pub(crate) model: u64,
}

impl Tuning {
    pub(crate) fn new() -> Self {
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
            model: 3,
        }
    }

    pub(crate) fn begin(&self, folder: &TempDir, resume: bool) -> Result<Finetune> {
        let targets = TargetModules {
            num_layers: None,
            keys: self.keys.clone(),
        };
        let model = model(self.model);
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
pub(crate) struct Pretraining {
    pub(crate) options: PretrainOptions,
    pub(crate) documents: u32,
    pub(crate) valid: Option<Validation>,
}

impl Pretraining {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn begin(&self, folder: &TempDir, resume: bool) -> Result<Pretrain> {
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

/// Consumes events up to the checkpoint after the second step, and drops the run.
pub(crate) fn stop_at_two<E>(run: impl Iterator<Item = Result<E>>, is_save: impl Fn(&E) -> bool) {
    let mut run = run.map(Result::unwrap);
    assert!(run.any(|event| is_save(&event)));
}

pub(crate) fn tuned_to_two(folder: &TempDir) {
    let run = Tuning::new().begin(folder, false).unwrap();
    stop_at_two(run, |event| matches!(event, FinetuneEvent::Saved { .. }));
}

pub(crate) fn pretrained_to_two(folder: &TempDir) {
    let run = Pretraining::new().begin(folder, false).unwrap();
    stop_at_two(run, |event| matches!(event, PretrainEvent::Saved { .. }));
}

/// The single difference that `error` lists.
pub(crate) fn difference(error: &Error) -> String {
    let Error::OtherRun { path, differences } = error else {
        panic!("{error}");
    };
    assert!(path.ends_with(STATE), "{error}");
    let [difference] = &differences[..] else {
        panic!("{error}");
    };
    difference.to_string()
}
