//! Reads the weights in a file that PyTorch's `torch.save` wrote (`.pt`, `.bin`, `.pth`).
//!
//! Such a file is a zip archive since PyTorch 1.6 ([`archive`]) and a row of pickles before
//! ([`legacy`]); in both, a pickle says which tensors lie where in which storage. The pickle is
//! read as data (see [`crate::formats::torch::pickle`]): nothing in it is ever run.
//!
//! What is saved is a flat state dict (name to tensor), or CoreNet's training checkpoint
//! (`get_training_state` in `corenet/utils/checkpoint_utils.py`): a dict that holds two of them,
//! `model_state_dict` and, if averaging was on, `ema_state_dict`, beside the optimizer's state and
//! counters. Those others are not looked at.

mod archive;
mod bytes;
mod legacy;
pub(crate) mod pickle;
mod state_dict;
mod strided;
mod torch_file;

pub use torch_file::{TorchFile, TorchTensor};
