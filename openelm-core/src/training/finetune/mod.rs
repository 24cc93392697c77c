//! Fine-tuning as a job: data in an order of its own, validation, saving, and exact resume.
//!
//! [`Finetune`] is an iterator of events; whoever pulls it sets its pace, and pauses it by not
//! pulling. In its folder it keeps
//!
//! - `adapters.safetensors`, `adapter_config.json`: the adapter at the last save, as mlx-lm has it;
//! - `best/`: the same of the best validation;
//! - `training_state.safetensors`: all that a run that was killed needs to end with the same bytes;
//! - `run.lock`: locked by the process that trains, with its id;
//! - `metrics.jsonl`: a line for every step and validation;
//! - `reference.safetensors`: preferences only, the log-probabilities to measure against.

mod data;
mod event;
pub(crate) mod finetune;
mod options;
mod order;
mod reference;
mod resume_key;
mod training_data;

pub use data::{DataOptions, DataSplits, Split};
pub use event::{FinetuneEnd, FinetuneEvent};
pub use finetune::Finetune;
pub use options::{FinetuneOptions, PreferenceOptions};
pub use training_data::TrainingData;
