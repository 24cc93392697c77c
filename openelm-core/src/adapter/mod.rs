//! Adapters: the result of fine-tuning, as tensors by checkpoint name.
//!
//! Names and shapes are as in mlx-lm: for a projection `W` `[out, in]` of rank `r`, `lora_a`
//! `[in, r]`, `lora_b` `[r, out]` and, for DoRA, `m` `[out]`; for the embedding `[V, D]`, `lora_a`
//! `[V, r]` and `lora_b` `[r, D]`. Adapters of mlx-lm and Hugging Face PEFT are
//! read and written, and CoreNet's files are read.

mod adapter;
mod attach;
mod corenet;
mod folder;
mod fuse;
mod init;
mod mlx_lm;
mod mlx_lm_settings;
mod options;
mod peft;
mod targets;
mod torch_tensors;

pub use adapter::{Adapter, AdapterKind, LoraOptions};
pub(crate) use init::each_linear;
pub use options::AdapterOptions;
pub use targets::{Keys, TargetModules};
pub(crate) use targets::{key_of, layer_of};
