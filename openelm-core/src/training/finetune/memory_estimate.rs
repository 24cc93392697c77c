//! An estimate of a fine-tuning's memory.

use super::{data::DataOptions, options::FinetuneOptions};
use crate::{
    adapter::Adapter,
    config::Layer,
    error::Result,
    mlx::Device,
    model::Model,
    training::{frozen_head, state_memory::bytes_per_parameter},
};

/// Bytes per number of the activations: f32, as norms, softmax and products on a CPU make in 16
/// bits too, and half as much for temporary arrays.
const NUMBER_BYTES: u64 = 6;

/// Parts of a frozen head that MLX computes at the same time: its `MLX_BFS_MAX_WIDTH`.
const HEAD_PARTS: u64 = 20;

/// The memory of a fine-tuning beside the weights of its model, in bytes: an upper estimate for the
/// choice of a batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinetuneMemory {
    /// Trained parameters, their gradients and the optimizer's state.
    pub parameters: u64,
    /// Activations that the backward pass needs, and temporary arrays, for a batch of rows of
    /// [`max_seq_length`](FinetuneOptions::max_seq_length) tokens.
    pub activations: u64,
}

impl FinetuneMemory {
    /// The estimate for `adapter` on `model`.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if MLX fails.
    pub fn of(
        model: &Model,
        adapter: &Adapter,
        options: &FinetuneOptions,
        rows: &DataOptions,
    ) -> Result<Self> {
        let config = model.config();
        // MLX's axes are i32; the terms of one token do not overflow.
        let length = options.max_seq_length.min(i32::MAX as usize) as u64;
        // A preference pair is two sequences.
        let sequences = if rows.preferences { 2 } else { 1 };
        let tokens = (options.batch_size as u64)
            .saturating_mul(sequences)
            .saturating_mul(length);
        let layers = config.layers();
        let (width, head) = (config.model_dim() as u64, config.head_dim() as u64);
        // Numbers per token that a layer keeps: norms, queries, keys and values before and after
        // norms and rotation, the attention's output, gate, up, their product, and the residuals.
        let kept = |layer: &Layer| {
            let (q, kv) = (layer.q_heads as u64 * head, layer.kv_heads as u64 * head);
            6 * width + 5 * q + 6 * kv + 3 * layer.ffn_dim as u64
        };
        // Attention scores and their gradient, where the attention is not fused.
        let scores = |layer: &Layer| 3 * layer.q_heads as u64 * length / 2;
        let of_layer = |layer: &Layer| kept(layer) + scores(layer);
        let most = layers.iter().map(of_layer).max().unwrap_or(0);
        let (kept, working) = if options.trainer.grad_checkpoint {
            // The input of each layer, and one layer twice: forward and backward.
            (width * layers.len() as u64, 2 * most)
        } else {
            // All layers, and the gradients of one.
            (layers.iter().map(of_layer).sum::<u64>(), most)
        };
        let bytes = |numbers: u64| tokens.saturating_mul(numbers * NUMBER_BYTES);
        let head_rows = if adapter.trains_head(config) {
            tokens
        } else {
            tokens.min(HEAD_PARTS * frozen_head::chunk(Device::current()?) as u64)
        };
        // Logits, their softmax, targets and gradient, and a copy of the head, f32.
        let logits = head_rows
            .saturating_mul(4)
            .saturating_add(width)
            .saturating_mul(4 * config.vocab_size() as u64);
        Ok(Self {
            parameters: adapter
                .parameter_count()
                .saturating_mul(bytes_per_parameter(&options.trainer)),
            // The gradients of the head come first; then its arrays are free.
            activations: bytes(kept).saturating_add(bytes(working).max(logits)),
        })
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.activations)
    }
}
