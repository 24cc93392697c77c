//! Training: one trainer, and the runs around it for fine-tuning and pre-training.

pub mod finetune;
mod gradient;
mod group;
mod loss;
mod metrics;
pub(crate) mod model_folder;
mod optimizer;
pub mod pretrain;
mod schedule;
mod state;
mod trainable;
mod trainer;
mod update;

pub use group::Group;
pub use loss::{Preference, PreferenceLoss};
pub(crate) use metrics::Metrics;
pub use optimizer::{Optimizer, OptimizerKind};
pub use schedule::{Schedule, ScheduleKind, ScheduleOptions, ScheduleShape};
pub(crate) use state::{STATE_FILE, changed};
pub use trainer::{Step, Trainer, TrainerOptions};
