//! Training data: rows for fine-tuning, sequences for pre-training, and batches of them.

pub(crate) mod batch;
pub mod corpus;
pub mod dataset;
mod fingerprint;

pub(crate) use fingerprint::Fingerprint;
