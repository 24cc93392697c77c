//! Reads and writes the weights in a file of PyTorch's `torch.save` (`.pt`, `.bin`, `.pth`).
//!
//! Such a file is a zip archive since PyTorch 1.6 ([`archive`]) and a sequence of pickles before
//! ([`legacy`]); in both, a pickle describes the tensors and their storages. The pickle is parsed
//! as data (see [`crate::formats::torch::pickle`]) and never executed.
//!
//! The saved object is a flat state dict (name to tensor), or a training checkpoint: a dict with two
//! state dicts, `model_state_dict` and, if averaging was on, `ema_state_dict`, in addition to the
//! optimizer's state and counters, which only [`TrainingCheckpoint`] reads.

mod archive;
mod bytes;
mod legacy;
pub(crate) mod pickle;
mod state_dict;
mod strided;
mod torch_file;
mod training_checkpoint;
mod writer;

pub use torch_file::{TorchFile, TorchTensor};
pub(crate) use training_checkpoint::{ParameterKey, TrainingCheckpoint};
pub(crate) use writer::{NewTorchTensor, TorchWriter};
