//! The architecture of a model: `config.json`, validated.

mod aliases;
mod config;
mod corenet_names;
pub(crate) mod json;
mod keys;
mod layer_wise;
mod preset;
pub(crate) mod scaling;
pub(crate) mod tensor_names;
mod tensors;
mod unknown_keys;

pub use config::{Config, Layer};
pub(crate) use corenet_names::{CORENET_VOCAB, VOCAB, corenet_name};
pub use layer_wise::LayerWiseConfig;
pub(crate) use layer_wise::{LAYERS, POSITIONS, outside};
pub use preset::Preset;
pub use scaling::Multipliers;
pub(crate) use scaling::{ffn_dim, query_heads};
