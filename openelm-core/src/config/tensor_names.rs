//! Checkpoint names of a model's tensors, as in Apple's safetensors on Hugging Face and in mlx-lm.
//! The name of a matrix or norm is its tensor's name without [`WEIGHT`].

/// Ending of a weight's name.
pub(crate) const WEIGHT: &str = ".weight";
/// Start of all names except the head's.
pub(crate) const BACKBONE: &str = "transformer.";
/// The embedding `[V, D]`.
pub(crate) const EMBEDDING: &str = "transformer.token_embeddings";
/// The head `[V, D]`; absent if the embedding is also the head.
pub(crate) const HEAD: &str = "lm_head";
/// The norm `[D]` before the head.
pub(crate) const FINAL_NORM: &str = "transformer.norm";
/// Start of the names in all layers.
pub(crate) const LAYERS: &str = "transformer.layers.";

// Parts of a layer: the attention's projections and norms, the FFN's projections.
pub(crate) const ATTN_NORM: &str = "attn_norm";
pub(crate) const QKV_PROJ: &str = "attn.qkv_proj";
pub(crate) const Q_NORM: &str = "attn.q_norm";
pub(crate) const K_NORM: &str = "attn.k_norm";
pub(crate) const OUT_PROJ: &str = "attn.out_proj";
pub(crate) const FFN_NORM: &str = "ffn_norm";
pub(crate) const PROJ_1: &str = "ffn.proj_1";
pub(crate) const PROJ_2: &str = "ffn.proj_2";

/// Name of `part` of the layer `index`.
pub(crate) fn layer(index: usize, part: &str) -> String {
    format!("{LAYERS}{index}.{part}")
}

/// Name of the tensor of the matrix or norm `name`.
pub(crate) fn weight(name: &str) -> String {
    format!("{name}{WEIGHT}")
}

/// Index of the layer that `name` is a part of, and the part's name.
pub(crate) fn parse_layer(name: &str) -> Option<(usize, &str)> {
    let (index, part) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((index.parse().ok()?, part))
}
