//! Apple's OpenELM language models on MLX.

mod attention;
mod cache;
pub mod checkpoint;
pub mod config;
mod config_extra;
mod config_json;
mod config_keys;
mod config_sizes;
mod dtype;
mod error;
mod feed_forward;
mod layer_wise;
mod linear;
mod model;
pub mod preset;
mod rope;
mod sampling;
mod scaling;
mod stop;
mod weights;

pub use cache::KvCache;
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use dtype::{Device, Dtype};
pub use error::{Error, Result};
pub use model::Model;
pub use preset::Preset;
pub use sampling::Sampling;
pub use weights::Weights;
