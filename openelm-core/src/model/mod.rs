//! The OpenELM network.

mod attention;
mod feed_forward;
mod kv_cache;
mod linear;
mod lora;
mod model;
mod rope;

pub use kv_cache::KvCache;
pub(crate) use linear::{Linear, Matrix};
pub(crate) use lora::{Dropout, LowRank, RowNorms, row_squares};
pub(crate) use model::LayerByLayerForward;
pub use model::Model;
