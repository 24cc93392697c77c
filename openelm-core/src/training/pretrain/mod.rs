//! Pre-training as a job: a new model from random weights, by CoreNet's recipe, with validation,
//! checkpoints, averages and exact resume, on one process or several.
//!
//! [`Pretrain`] is an iterator of events, as [`crate::finetune`]'s. In its folder it keeps
//!
//! - `checkpoints/step-000100/` and so on: the latest saves, model folders to generate from;
//! - `model/`: the weights after the last step; `average/`: the plain mean of the last
//!   checkpoints; `ema/`: the moving average;
//! - `training_state.safetensors`: all that a run that was killed needs to end with the same bytes;
//! - `run.lock`: locked by the process that trains, with its id;
//! - `metrics.jsonl`: a line for every step and validation.
//!
//! The recipe's figures are those of CoreNet's `projects/openelm/pretraining_configs`
//! (OpenELM, <https://arxiv.org/abs/2404.14619>, section 3).

mod architecture;
mod corpus_source;
mod estimate;
mod event;
mod options;
pub(crate) mod pretrain;
mod resume_key;
mod source;
mod validation;

pub use architecture::new_architecture;
pub use corpus_source::CorpusSource;
pub use estimate::RunEstimate;
pub use event::{PretrainEnd, PretrainEvent};
pub use options::{PretrainOptions, Recipe};
pub use pretrain::Pretrain;
pub use source::{MemorySource, SequenceSource};
pub use validation::Validation;
