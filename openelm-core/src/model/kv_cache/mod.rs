//! Key-value caches in mlx-lm's kinds: plain, rotating and quantised.

mod buffer;
mod kv_cache;
mod layer_cache;
mod options;
mod plain;
mod quantized;
mod rotating;
mod state;

pub(crate) use buffer::STEP;
pub use kv_cache::KvCache;
pub(crate) use kv_cache::Window;
pub(crate) use layer_cache::{Cached, LayerCache};
pub use options::KvCacheOptions;
pub(crate) use state::LayerState;
