//! Reads the weights in a file of PyTorch's `torch.save` (`.pt`, `.bin`, `.pth`).
//!
//! Such a file is a zip archive since PyTorch 1.6 ([`archive`]) and a sequence of pickles before
//! ([`legacy`]); in both, a pickle describes the tensors and their storages. The pickle is parsed
//! as data (see [`crate::formats::torch::pickle`]) and never executed.
//!
//! The saved object is a flat state dict (name to tensor), or CoreNet's training checkpoint
//! (`get_training_state` in `corenet/utils/checkpoint_utils.py`): a dict with two state dicts,
//! `model_state_dict` and, if averaging was on, `ema_state_dict`, in addition to the optimizer's
//! state and counters, which are ignored.

mod archive;
mod bytes;
mod legacy;
pub(crate) mod pickle;
mod state_dict;
mod strided;
mod torch_file;

pub use torch_file::{TorchFile, TorchTensor};
