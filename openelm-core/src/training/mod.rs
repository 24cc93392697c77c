//! Training: the trainer, and the runs of fine-tuning and pre-training.

#[cfg(test)]
mod dtype_trace;
mod event;
mod exception;
#[cfg(test)]
mod failed_step_tests;
pub mod finetune;
mod gradient;
mod group;
mod loss;
mod metrics;
pub(crate) mod model_folder;
mod optimizer;
pub mod pretrain;
mod resume_key;
mod run;
mod run_folder;
mod schedule;
mod seed;
mod state;
mod state_memory;
mod trainable;
mod trainer;
mod update;

pub use event::BestValidation;
pub use group::Group;
pub use loss::{Preference, PreferenceLoss};
pub use optimizer::{Optimizer, OptimizerKind};
pub use schedule::{Schedule, ScheduleKind, ScheduleOptions, ScheduleShape};
pub use trainer::{Step, Trainer, TrainerOptions};
