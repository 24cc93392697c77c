//! Training: the trainer, and the runs of fine-tuning and pre-training.

mod batch_arrays;
mod compiled;
#[cfg(test)]
mod copies_tests;
#[cfg(test)]
mod dtype_trace;
mod evaluate;
mod event;
mod exception;
#[cfg(test)]
mod failed_work_tests;
pub mod finetune;
mod frozen_head;
mod gradient;
mod group;
mod loss;
mod metrics;
pub(crate) mod model_folder;
mod optimizer;
mod preference;
pub mod pretrain;
mod resume_key;
mod run;
mod run_folder;
mod schedule;
mod sharded_state;
mod sharded_update;
mod sharding;
mod softmax;
mod state;
mod state_memory;
mod step_evaluation;
mod step_failure;
mod step_function;
mod trainable;
mod trained_head;
mod trainer;
mod trainer_options;
mod update;

pub use event::BestValidation;
pub(crate) use exception::into_exception;
pub use group::Group;
pub(crate) use optimizer::OptimizerState;
pub use optimizer::{Optimizer, OptimizerKind};
pub use preference::{Preference, PreferenceLoss};
pub use schedule::{Schedule, ScheduleKind, ScheduleOptions, ScheduleShape};
pub use trainer::{Step, Trainer};
pub use trainer_options::TrainerOptions;
