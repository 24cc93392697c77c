//! An estimate of a fine-tuning's memory.

use super::options::FinetuneOptions;
use crate::{
    adapter::{Adapter, AdapterKind},
    config::Layer,
    model::Model,
    training::state_memory::bytes_per_parameter,
};

/// The memory of a fine-tuning beside the weights of its model, in bytes: an upper estimate for the
/// choice of a batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinetuneMemory {
    /// Trained parameters, their gradients and the optimizer's state.
    pub parameters: u64,
    /// Activations that the backward pass needs, and temporary arrays, for a batch of the longest
    /// rows.
    pub activations: u64,
}

impl FinetuneMemory {
    /// The estimate for `adapter` on `model`, for rows of `length` tokens at most.
    pub fn of(model: &Model, adapter: &Adapter, options: &FinetuneOptions, length: usize) -> Self {
        let config = model.config();
        // In 16 bits, too: norms, softmax, and products on a CPU make f32 arrays.
        let bytes = 4;
        let trained = adapter.parameter_count();
        let length = length.min(options.max_seq_length) as u64;
        let tokens = (options.batch_size as u64).saturating_mul(length);
        let layers = config.layers();
        let (width, head) = (config.model_dim() as u64, config.head_dim() as u64);
        // Numbers per token that a layer keeps: norms, queries, keys and values before and after
        // norms and rotation, the attention's output, gate, up, their product, and the residuals.
        let kept = |layer: &Layer| {
            let (q, kv) = (layer.q_heads as u64 * head, layer.kv_heads as u64 * head);
            6 * width + 5 * q + 6 * kv + 4 * layer.ffn_dim as u64
        };
        // Numbers per token of a layer's attention scores and their gradient, where the attention
        // is not fused.
        let scores = |layer: &Layer| 3 * layer.q_heads as u64 * length / 2;
        let of_layer = |layer: &Layer| kept(layer) + scores(layer);
        let most = layers.iter().map(of_layer).max().unwrap_or(0);
        let numbers = if options.trainer.grad_checkpoint {
            // The input of each layer, and one layer twice: forward and backward.
            width * layers.len() as u64 + 2 * most
        } else {
            // All layers, and the gradients of one.
            layers.iter().map(of_layer).sum::<u64>() + most
        };
        // A chunk of logits and its gradient, f32.
        let logits = 2 * 4 * HEAD_ROWS.min(tokens) * config.vocab_size() as u64;
        let logits = match adapter.kind() {
            // A head that is trained has the logits of all tokens.
            AdapterKind::Full => 3 * 4 * tokens.saturating_mul(config.vocab_size() as u64),
            AdapterKind::Lora | AdapterKind::Dora => logits,
        };
        Self {
            parameters: trained.saturating_mul(bytes_per_parameter(&options.trainer)),
            activations: tokens
                .saturating_mul(numbers * bytes / 4 * MARGIN)
                .saturating_add(logits),
        }
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.activations)
    }
}

/// Quarters of the counted numbers that are allowed, for temporary arrays.
const MARGIN: u64 = 6;
/// Rows of a frozen head whose logits exist at the same time.
const HEAD_ROWS: u64 = 512;
