//! Training: the trainer, and the runs of fine-tuning and pre-training.

mod batch_arrays;
mod compiled;
mod event;
mod exception;
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
mod seed;
mod softmax;
mod state;
mod step_function;
mod trainable;
mod trained_head;
mod trainer;
mod trainer_options;
mod update;

pub use event::BestValidation;
pub use group::Group;
pub use optimizer::{Optimizer, OptimizerKind};
pub use preference::{Preference, PreferenceLoss};
pub use schedule::{Schedule, ScheduleKind, ScheduleOptions, ScheduleShape};
pub use trainer::{Step, Trainer};
pub use trainer_options::TrainerOptions;
