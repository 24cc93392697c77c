//! Pre-training runs: a new model from random weights, by CoreNet's recipe, with validation,
//! checkpoints, averages and exact resume, on one process or several.
//!
//! [`Pretrain`] is an iterator of events, like [`crate::finetune`]'s. Its folder contains
//!
//! - `checkpoints/step-000100/` and so on: the latest saves, each a usable model folder;
//! - `model/`: the weights after the last step; `average/`: the plain mean of the last
//!   checkpoints; `ema/`: the moving average;
//! - `training_state.safetensors`: the state from which a killed run resumes to the same bytes;
//! - `run.lock`: locked by the training process, with its id;
//! - `metrics.jsonl`: a line for every step and validation.
//!
//! The recipe's values follow CoreNet's `projects/openelm/pretraining_configs`
//! (OpenELM, <https://arxiv.org/abs/2404.14619>, section 3).

mod architecture;
mod checkpoints;
mod corenet_checkpoint;
mod corpus_source;
mod estimate;
mod event;
mod options;
pub(crate) mod pretrain;
mod resume_key;
mod source;
mod validation;

pub use architecture::new_architecture;
pub use corenet_checkpoint::CoreNetCheckpoint;
pub use corpus_source::CorpusSource;
pub use estimate::RunEstimate;
pub use event::{PretrainEnd, PretrainEvent};
pub use options::{PretrainOptions, Recipe};
pub use pretrain::Pretrain;
pub use source::{MemorySource, SequenceSource};
pub use validation::Validation;
