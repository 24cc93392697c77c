//! Options of a fine-tuning run, and their conversion to the core's options.

use openelm_core::{
    adapter::{self as core_adapter, AdapterOptions, Keys, LoraOptions, TargetModules},
    dataset,
    finetune::{self as core_finetune, DataOptions},
    train::{self as core_train, Optimizer, ScheduleOptions, TrainerOptions},
};

use crate::{chat::ChatTemplate, count::count, error::Result};

/// The kind of adapter to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::adapter::AdapterKind")]
pub enum AdapterKind {
    Lora,
    Dora,
    Full,
}

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::train::OptimizerKind")]
pub enum OptimizerKind {
    Adam,
    AdamW,
    Sgd,
    Lion,
    Adafactor,
}

/// The learning rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::train::ScheduleShape")]
pub enum ScheduleShape {
    Constant,
    Linear,
    Cosine,
    CoreNet,
}

/// The loss of preference pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::train::PreferenceLoss")]
pub enum PreferenceLoss {
    Sigmoid,
    Hinge,
}

/// The treatment of rows that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::dataset::LongRows")]
pub enum LongRows {
    Split,
    Drop,
}

/// Options of a fine-tuning run: the options of the core's `FinetuneOptions`, `AdapterOptions`,
/// `DataOptions`, `TrainerOptions`, `Optimizer` and `ScheduleOptions` that apps need.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as the core's fields of these names")]
pub struct FinetuneOptions {
    pub fine_tune_type: AdapterKind,
    pub rank: u64,
    pub scale: f32,
    pub dropout: f32,
    /// `None` trains all layers.
    pub num_layers: Option<u64>,
    /// `None` trains all linear layers of these transformer layers.
    pub keys: Option<Vec<String>>,
    pub iters: u64,
    pub batch_size: u64,
    pub max_seq_length: u64,
    pub mask_prompt: bool,
    pub preferences: bool,
    pub preference_loss: PreferenceLoss,
    pub beta: f32,
    pub long_rows: LongRows,
    pub max_prompt_length: Option<u64>,
    pub chat_template: Option<ChatTemplate>,
    pub clean_text: bool,
    pub optimizer: OptimizerKind,
    /// `None` is the optimizer's own.
    pub beta1: Option<f32>,
    /// `None` is the optimizer's own.
    pub beta2: Option<f32>,
    pub eps: f32,
    pub momentum: f32,
    pub bias_correction: bool,
    pub learning_rate: f64,
    pub lr_schedule: ScheduleShape,
    pub lr_end: f64,
    pub warmup: u64,
    pub warmup_init: f64,
    pub weight_decay: f32,
    pub z_loss: f32,
    pub grad_accumulation_steps: u64,
    pub grad_checkpoint: bool,
    pub clip_norm: Option<f32>,
    pub steps_per_eval: u64,
    pub val_batches: Option<u64>,
    pub save_every: u64,
    pub patience: Option<u32>,
    pub seed: u64,
}

/// The core's defaults.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn default_finetune_options() -> Result<FinetuneOptions> {
    let adapter = AdapterOptions::default();
    let run = core_finetune::FinetuneOptions::default();
    let data = DataOptions::default();
    let schedule = ScheduleOptions::default();
    let trainer = run.trainer;
    Ok(FinetuneOptions {
        fine_tune_type: adapter.kind.into(),
        rank: adapter.lora.rank as u64,
        scale: adapter.lora.scale,
        dropout: adapter.lora.dropout,
        num_layers: adapter.targets.num_layers.map(|layers| layers as u64),
        keys: match adapter.targets.keys {
            Keys::Names(names) => Some(names),
            Keys::AllProjections | Keys::Regex(_) => None,
        },
        iters: run.iters,
        batch_size: run.batch_size as u64,
        max_seq_length: run.max_seq_length as u64,
        mask_prompt: data.mask_prompt,
        preferences: data.preferences,
        preference_loss: run.preference.loss.into(),
        beta: run.preference.beta,
        long_rows: data.long_rows.into(),
        max_prompt_length: data.max_prompt_length.map(|tokens| tokens as u64),
        // The core's default depends on the rows.
        chat_template: None,
        clean_text: data.clean_text,
        optimizer: trainer.optimizer.kind.into(),
        beta1: None,
        beta2: None,
        eps: trainer.optimizer.eps,
        momentum: trainer.optimizer.momentum,
        bias_correction: trainer.optimizer.bias_correction,
        learning_rate: schedule.learning_rate,
        lr_schedule: schedule.shape.into(),
        lr_end: schedule.end,
        warmup: schedule.warmup,
        warmup_init: schedule.warmup_init,
        weight_decay: trainer.optimizer.weight_decay,
        z_loss: trainer.z_loss,
        grad_accumulation_steps: trainer.grad_accumulation_steps as u64,
        grad_checkpoint: trainer.grad_checkpoint,
        clip_norm: trainer.clip_norm,
        steps_per_eval: run.steps_per_eval,
        val_batches: run.val_batches.map(|batches| batches as u64),
        save_every: run.save_every,
        patience: run.patience,
        seed: trainer.seed,
    })
}

impl From<&FinetuneOptions> for core_finetune::FinetuneOptions {
    fn from(options: &FinetuneOptions) -> Self {
        let schedule = ScheduleOptions {
            shape: options.lr_schedule.into(),
            learning_rate: options.learning_rate,
            end: options.lr_end,
            warmup: options.warmup,
            warmup_init: options.warmup_init,
        };
        let grad_accumulation_steps = count(options.grad_accumulation_steps);
        Self {
            trainer: TrainerOptions {
                optimizer: optimizer(options),
                schedule: schedule.schedule(options.iters, grad_accumulation_steps),
                grad_accumulation_steps,
                clip_norm: options.clip_norm,
                grad_checkpoint: options.grad_checkpoint,
                z_loss: options.z_loss,
                seed: options.seed,
                ..TrainerOptions::default()
            },
            preference: core_finetune::PreferenceOptions {
                loss: options.preference_loss.into(),
                beta: options.beta,
            },
            iters: options.iters,
            batch_size: count(options.batch_size),
            max_seq_length: count(options.max_seq_length),
            steps_per_eval: options.steps_per_eval,
            val_batches: options.val_batches.map(count),
            save_every: options.save_every,
            patience: options.patience,
            ..Self::default()
        }
    }
}

impl From<&FinetuneOptions> for DataOptions {
    fn from(options: &FinetuneOptions) -> Self {
        Self {
            mask_prompt: options.mask_prompt,
            preferences: options.preferences,
            long_rows: options.long_rows.into(),
            max_prompt_length: options.max_prompt_length.map(count),
            chat_template: options.chat_template.map(Into::into),
            clean_text: options.clean_text,
            ..Self::default()
        }
    }
}

fn optimizer(options: &FinetuneOptions) -> Optimizer {
    let own = Optimizer::new(options.optimizer.into());
    Optimizer {
        betas: [
            options.beta1.unwrap_or(own.betas[0]),
            options.beta2.unwrap_or(own.betas[1]),
        ],
        eps: options.eps,
        weight_decay: options.weight_decay,
        momentum: options.momentum,
        bias_correction: options.bias_correction,
        ..own
    }
}

impl From<&FinetuneOptions> for AdapterOptions {
    fn from(options: &FinetuneOptions) -> Self {
        Self {
            kind: options.fine_tune_type.into(),
            lora: LoraOptions {
                rank: count(options.rank),
                scale: options.scale,
                dropout: options.dropout,
                ..LoraOptions::default()
            },
            targets: TargetModules {
                num_layers: options.num_layers.map(count),
                keys: options
                    .keys
                    .clone()
                    .map_or(Keys::AllProjections, Keys::Names),
            },
        }
    }
}

/// Conversions in both directions between two enums with the same variants.
macro_rules! same_variants {
    ($ours:ident, $cores:path: $($variant:ident)*) => {
        impl From<$ours> for $cores {
            fn from(value: $ours) -> Self {
                match value { $($ours::$variant => Self::$variant,)* }
            }
        }
        impl From<$cores> for $ours {
            fn from(value: $cores) -> Self {
                use $cores as Core;
                match value { $(Core::$variant => Self::$variant,)* }
            }
        }
    };
}

same_variants!(AdapterKind, core_adapter::AdapterKind: Lora Dora Full);
same_variants!(OptimizerKind, core_train::OptimizerKind: Adam AdamW Sgd Lion Adafactor);
same_variants!(PreferenceLoss, core_train::PreferenceLoss: Sigmoid Hinge);
same_variants!(LongRows, dataset::LongRows: Split Drop);
same_variants!(ScheduleShape, core_train::ScheduleShape: Constant Linear Cosine CoreNet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_cores() {
        let options = &default_finetune_options().unwrap();
        assert_eq!(
            core_finetune::FinetuneOptions::from(options),
            core_finetune::FinetuneOptions::default()
        );
        assert_eq!(DataOptions::from(options), DataOptions::default());
        assert_eq!(AdapterOptions::from(options), AdapterOptions::default());
    }

    #[test]
    fn optimizer_and_schedule_reach_the_core() {
        let options = FinetuneOptions {
            optimizer: OptimizerKind::Lion,
            weight_decay: 0.1,
            lr_schedule: ScheduleShape::Cosine,
            iters: 100,
            warmup: 5,
            grad_accumulation_steps: 4,
            ..default_finetune_options().unwrap()
        };
        let trainer = core_finetune::FinetuneOptions::from(&options).trainer;
        let expected = Optimizer {
            weight_decay: 0.1,
            ..Optimizer::new(core_train::OptimizerKind::Lion)
        };
        assert_eq!(trainer.optimizer, expected);
        let decay = core_train::ScheduleKind::Cosine {
            end: 0.0,
            steps: 20,
        };
        assert_eq!(trainer.schedule.kind, decay);
    }
}
