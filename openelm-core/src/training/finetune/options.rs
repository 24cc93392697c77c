//! Options of a fine-tuning run.

use super::{order::lengths, training_data::TrainingData};
use crate::{
    config::Config,
    data::{
        batch::{Batch, Padding},
        dataset::{Example, PreferencePair},
    },
    error::{Error, Result},
    mlx::memory,
    training::{PreferenceLoss, TrainerOptions},
};

/// Options of a [`Finetune`](crate::training::finetune::finetune::Finetune).
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneOptions {
    /// Options of each step.
    pub trainer: TrainerOptions,
    /// Total number of batches. Default 1,000.
    pub iters: u64,
    /// Rows (or pairs) per batch. Default 4.
    pub batch_size: usize,
    /// Largest number of tokens per row. Default 2,048.
    pub max_seq_length: usize,
    /// Iterations between validations. Default 200. The run also validates before the first step
    /// and after the last.
    pub steps_per_eval: u64,
    /// Largest number of batches per validation; `None` is all. Default 25.
    pub val_batches: Option<usize>,
    /// Iterations between saves. Default 100. The last iteration is also saved.
    pub save_every: u64,
    /// End the run after this many validations in a row without a better loss. Default never.
    pub patience: Option<u32>,
    /// The loss of preference pairs.
    pub preference: PreferenceOptions,
    /// Use the batches, masks and validation times of mlx-lm's `lora`, to compare with it. This
    /// includes its defects: a padding token counts as a target, rows are not grouped by length,
    /// and rows that do not fill a batch are never used.
    pub mlx_lm_compat: bool,
}

/// The loss of preference pairs (DPO).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceOptions {
    /// The loss. Default sigmoid.
    pub loss: PreferenceLoss,
    /// β: weight of the reference model. Default 0.01, as in OpenELM-Instruct.
    pub beta: f32,
}

impl Default for PreferenceOptions {
    fn default() -> Self {
        Self {
            loss: PreferenceLoss::Sigmoid,
            beta: 0.01,
        }
    }
}

impl Default for FinetuneOptions {
    fn default() -> Self {
        Self {
            trainer: TrainerOptions::default(),
            iters: 1000,
            batch_size: 4,
            max_seq_length: 2048,
            steps_per_eval: 200,
            val_batches: Some(25),
            save_every: 100,
            patience: None,
            preference: PreferenceOptions::default(),
            mlx_lm_compat: false,
        }
    }
}

impl FinetuneOptions {
    pub(super) fn check(&self) -> Result<()> {
        let zero = [
            ("iters", self.iters),
            ("batch_size", self.batch_size as u64),
            ("steps_per_eval", self.steps_per_eval),
            ("save_every", self.save_every),
            ("val_batches", self.val_batches.unwrap_or(1) as u64),
            ("patience", u64::from(self.patience.unwrap_or(1))),
        ];
        if let Some(&(option, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Option {
                option,
                problem: "expected at least 1, found 0".into(),
            });
        }
        if self.max_seq_length < 2 {
            return Err(Error::Option {
                option: "max_seq_length",
                problem: format!("expected at least 2, found {}", self.max_seq_length),
            });
        }
        let beta = self.preference.beta;
        if !(beta > 0.0 && beta.is_finite()) {
            let problem = format!("expected a number above 0, found {beta}");
            return Err(Error::option("beta", problem));
        }
        Ok(())
    }

    /// Refuses batches of `train` that MLX cannot address, or that do not fit into memory.
    pub(super) fn check_sizes(&self, train: &TrainingData, config: &Config) -> Result<()> {
        let (option, found, most) = ("batch_size", self.batch_size, i32::MAX as usize);
        if found > most {
            let problem = format!("expected at most {most}, found {found}");
            return Err(Error::option(option, problem));
        }
        let sides = match train {
            TrainingData::Examples(_) => 1,
            TrainingData::Pairs(_) => 2,
        };
        let mut lengths = lengths(train);
        lengths.sort_unstable();
        // Any batch of this many rows is at least as long as the last of the shortest rows.
        let rows = found.min(lengths.len());
        let longest = lengths.get(rows.saturating_sub(1)).copied();
        let length = longest.unwrap_or(0).min(self.max_seq_length);
        let tokens = (sides * rows).saturating_mul(length.saturating_sub(1));
        if tokens > most {
            let problem = format!(
                "expected batches of at most {most} tokens, found {found} rows with {tokens} tokens"
            );
            return Err(Error::option(option, problem));
        }
        // The input and the output of a layer, in 16 bits.
        let bytes = tokens as u128 * 4 * config.model_dim() as u128;
        memory::check_fits(option, found, bytes)
    }

    /// The batch of the rows `rows` of `data`.
    pub(super) fn batch(&self, data: &TrainingData, rows: &[usize]) -> Batch {
        let padding = Padding {
            max_length: self.max_seq_length,
            ..Padding::default()
        };
        match data {
            TrainingData::Examples(examples) => {
                let chosen: Vec<&Example> = rows.iter().filter_map(|&i| examples.get(i)).collect();
                if self.mlx_lm_compat {
                    Batch::mlx_lm(&chosen, self.max_seq_length)
                } else {
                    Batch::new(&chosen, padding)
                }
            }
            TrainingData::Pairs(pairs) => {
                let chosen: Vec<&PreferencePair> =
                    rows.iter().filter_map(|&i| pairs.get(i)).collect();
                Batch::pairs(&chosen, padding)
            }
        }
    }
}
