//! Fine-tuning runs: order of the data, validation, saving, and exact resume.
//!
//! [`Finetune`] is an iterator of events; the caller sets its pace, and pauses it by not requesting
//! the next event. Its folder contains
//!
//! - `adapters.safetensors`, `adapter_config.json`: the adapter at the last save, as in mlx-lm;
//! - `best/`: the adapter at the best validation, in the same format;
//! - `training_state.safetensors`: the state from which a killed run resumes to the same bytes;
//! - `run.lock`: locked by the training process, with its id;
//! - `metrics.jsonl`: a line for every step and validation;
//! - `reference.safetensors`: preferences only, the log-probabilities of the reference model.

mod data;
mod event;
pub(crate) mod finetune;
mod memory_estimate;
mod options;
mod order;
mod reference;
mod resume_key;
mod saved_run;
mod training_data;

pub use data::{DataOptions, DataSplits, Split};
pub use event::{FinetuneEnd, FinetuneEvent};
pub use finetune::Finetune;
pub use memory_estimate::FinetuneMemory;
pub use options::{FinetuneOptions, PreferenceOptions};
pub use saved_run::SavedRun;
pub use training_data::TrainingData;
