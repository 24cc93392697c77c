//! The OpenELM network.

mod adapters;
mod attention;
mod block;
mod feed_forward;
mod fingerprint;
mod forward_context;
mod kv_cache;
mod layer_by_layer;
mod linear;
mod lora;
mod model;
mod non_finite;
mod qk_norm;
mod quantized_attention;
mod rms_norm;
mod rope;
mod single_layer;
mod split;
mod token_tree;
mod unfused_attention;

pub(crate) use adapters::{Module, Named, next_revision};
pub(crate) use kv_cache::LayerState;
pub use kv_cache::{KvCache, KvCacheOptions};
pub(crate) use layer_by_layer::LayerByLayerForward;
pub(crate) use linear::Linear;
pub(crate) use lora::{Dropout, RowNorms, row_squares};
pub use model::Model;
pub(crate) use non_finite::{is_finite, value_at_fault};
pub(crate) use single_layer::{PROJECTIONS, SingleLayer};
pub(crate) use token_tree::TokenTree;
