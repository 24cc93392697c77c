//! The tensors, parameters and bytes of an architecture.
//!
//! Checkpoint names are the same in Apple's safetensors on Hugging Face and in mlx-lm.

use std::path::Path;

use super::{
    config::{Config, Layer},
    layer_wise::{HEADS, outside},
    tensor_names::{
        ATTN_NORM, EMBEDDING, FFN_NORM, FINAL_NORM, HEAD, K_NORM, OUT_PROJ, PROJ_1, PROJ_2, Q_NORM,
        QKV_PROJ, layer as layer_name, weight,
    },
};
use crate::error::{Error, Result};

impl Config {
    /// Checkpoint names and shapes of all weights, in Hugging Face's layout and the model's order.
    ///
    /// A released model of N layers has 8 N + 2 tensors; without QK norm two fewer per layer, with
    /// a separate head one more (`lm_head.weight`).
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (model_dim, head_dim) = (self.model_dim(), self.head_dim());
        let mut tensors = Vec::with_capacity(8 * self.layers.len() + 3);
        let mut push = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));

        push(weight(EMBEDDING), &[self.vocab_size(), model_dim]);
        for (i, layer) in self.layers.iter().enumerate() {
            let Layer {
                q_heads,
                kv_heads,
                ffn_dim,
            } = *layer;
            let qkv_dim = (q_heads + 2 * kv_heads) * head_dim;
            let proj_1_dim = if self.ffn_with_glu() {
                2 * ffn_dim
            } else {
                ffn_dim
            };
            let name = |part: &str| weight(&layer_name(i, part));

            push(name(ATTN_NORM), &[model_dim]);
            push(name(QKV_PROJ), &[qkv_dim, model_dim]);
            if self.normalize_qk_projections() {
                push(name(Q_NORM), &[head_dim]);
                push(name(K_NORM), &[head_dim]);
            }
            push(name(OUT_PROJ), &[model_dim, q_heads * head_dim]);
            push(name(FFN_NORM), &[model_dim]);
            push(name(PROJ_1), &[proj_1_dim, model_dim]);
            push(name(PROJ_2), &[model_dim, ffn_dim]);
        }
        push(weight(FINAL_NORM), &[model_dim]);
        if !self.share_input_output_layers() {
            push(weight(HEAD), &[self.vocab_size(), model_dim]);
        }
        tensors
    }

    /// Number of weights; a shared embedding counts once.
    pub fn parameter_count(&self) -> u64 {
        self.tensors()
            .iter()
            .map(|(_, shape)| elements(shape))
            .sum()
    }

    /// Bytes of all weights, unquantized, at `bytes_per_element` (2 for bf16).
    pub fn weights_bytes(&self, bytes_per_element: u64) -> u64 {
        self.parameter_count().saturating_mul(bytes_per_element)
    }

    /// Bytes of keys and values that one token adds to the cache, at `bytes_per_element`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: u64) -> u64 {
        let kv_heads: u64 = self.layers.iter().map(|layer| layer.kv_heads as u64).sum();
        (2 * kv_heads * self.head_dim() as u64).saturating_mul(bytes_per_element)
    }

    /// Refuses tensors that MLX cannot address and models of implausible size, which settings
    /// within their ranges can add up to.
    pub(crate) fn check_sizes(self, path: &Path) -> Result<Self> {
        const MAX_ELEMENTS: u64 = (1 << 31) - 1;
        const MAX_PARAMETERS: u64 = 1_000_000_000_000;
        for layer in &self.layers {
            if !HEADS.contains(&layer.q_heads) {
                let problem = outside("query heads", &HEADS, layer.q_heads);
                return Err(Error::config(path, "qkv_multipliers", problem));
            }
        }
        for (name, shape) in self.tensors() {
            let elements = elements(&shape);
            if elements > MAX_ELEMENTS {
                let key = if name.contains(".attn.") {
                    "num_query_heads"
                } else if name.contains(".ffn.") {
                    "ffn_multipliers"
                } else {
                    "vocab_size"
                };
                let problem = format!(
                    "tensor `{name}` of shape {shape:?} would have {elements} elements; \
                     at most {MAX_ELEMENTS} are possible"
                );
                return Err(Error::config(path, key, problem));
            }
        }
        let parameters = self.parameter_count();
        if parameters > MAX_PARAMETERS {
            let problem = format!(
                "the model would have {parameters} parameters; \
                 at most {MAX_PARAMETERS} are supported"
            );
            return Err(Error::config(path, "num_transformer_layers", problem));
        }
        Ok(self)
    }
}

/// Product of a shape; [`check_sizes`](Config::check_sizes) relies on two 32-bit factors at most.
fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|dim| *dim as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layer_wise::LayerWiseConfig;
    use crate::config::scaling::Multipliers;

    /// CoreNet's `gpt-test` with 100 tokens.
    fn gpt_test() -> LayerWiseConfig {
        LayerWiseConfig {
            model_dim: 128,
            num_transformer_layers: 1,
            num_gqa_groups: Some(1),
            qkv_multipliers: Multipliers::Range(0.25, 0.5),
            ffn_multipliers: Multipliers::Range(0.25, 0.75),
            vocab_size: 100,
            ..LayerWiseConfig::default()
        }
    }

    fn refusal(settings: LayerWiseConfig) -> String {
        Config::layer_wise(settings).unwrap_err().to_string()
    }

    #[test]
    fn one_layer_has_one_head() {
        let config = Config::layer_wise(gpt_test()).unwrap();
        assert_eq!(
            config.layers(),
            [Layer {
                q_heads: 1,
                kv_heads: 1,
                ffn_dim: 256
            }]
        );
        assert_eq!(config.parameter_count(), 144_384);
        assert_eq!(config.weights_bytes(2), 288_768);
        assert_eq!(config.kv_bytes_per_token(2), 256);
    }

    #[test]
    fn tensors_have_hugging_face_names_and_shapes() {
        let config = Config::layer_wise(gpt_test()).unwrap();
        let expected: [(&str, &[usize]); 10] = [
            ("transformer.token_embeddings.weight", &[100, 128]),
            ("transformer.layers.0.attn_norm.weight", &[128]),
            ("transformer.layers.0.attn.qkv_proj.weight", &[192, 128]),
            ("transformer.layers.0.attn.q_norm.weight", &[64]),
            ("transformer.layers.0.attn.k_norm.weight", &[64]),
            ("transformer.layers.0.attn.out_proj.weight", &[128, 64]),
            ("transformer.layers.0.ffn_norm.weight", &[128]),
            ("transformer.layers.0.ffn.proj_1.weight", &[512, 128]),
            ("transformer.layers.0.ffn.proj_2.weight", &[128, 256]),
            ("transformer.norm.weight", &[128]),
        ];
        assert_eq!(
            config.tensors(),
            expected.map(|(name, shape)| (name.into(), shape.to_vec()))
        );
    }

    #[test]
    fn variants_change_the_tensors() {
        let variant = LayerWiseConfig {
            ffn_with_glu: false,
            normalize_qk_projections: false,
            share_input_output_layers: false,
            ..gpt_test()
        };
        let config = Config::layer_wise(variant).unwrap();
        let tensors = config.tensors();
        assert_eq!(tensors.len(), 9);
        assert!(
            tensors
                .iter()
                .all(|(name, _)| !name.contains("q_norm") && !name.contains("k_norm"))
        );
        assert!(tensors.contains(&(
            "transformer.layers.0.ffn.proj_1.weight".into(),
            vec![256, 128]
        )));
        assert_eq!(
            tensors.last(),
            Some(&("lm_head.weight".into(), vec![100, 128]))
        );
        // The head has 12,800 more weights, the gate 32,768 and the two norms 128 fewer.
        assert_eq!(config.parameter_count(), 144_384 + 12_800 - 32_768 - 128);
    }

    #[test]
    fn uniform_models_repeat_their_layer() {
        // CoreNet's `gpt-1_3B`.
        let settings = LayerWiseConfig {
            model_dim: 2048,
            num_transformer_layers: 24,
            qkv_multipliers: Multipliers::Uniform(1.0),
            ffn_multipliers: Multipliers::Uniform(3.0),
            ..LayerWiseConfig::default()
        };
        let config = Config::layer_wise(settings).unwrap();
        assert_eq!(
            config.layers(),
            [Layer {
                q_heads: 32,
                kv_heads: 8,
                ffn_dim: 6144
            }; 24]
        );
        assert_eq!(config.kv_bytes_per_token(2), 49_152);
    }

    #[test]
    fn rejects_tensors_too_large_for_32_bits() {
        let wide = LayerWiseConfig {
            model_dim: 65_536,
            vocab_size: 1 << 15,
            ..gpt_test()
        };
        assert_eq!(
            refusal(wide),
            "config: `vocab_size`: tensor `transformer.token_embeddings.weight` of shape \
             [32768, 65536] would have 2147483648 elements; at most 2147483647 are possible",
        );
        let wide = LayerWiseConfig {
            model_dim: 65_536,
            ..gpt_test()
        };
        let heads = LayerWiseConfig {
            qkv_multipliers: Multipliers::Uniform(1.0),
            ..wide.clone()
        };
        assert!(refusal(heads).contains("`num_query_heads`: tensor `transformer.layers.0.attn."));
        let ffn = LayerWiseConfig {
            qkv_multipliers: Multipliers::Uniform(0.01),
            ffn_multipliers: Multipliers::Uniform(0.5),
            ..wide
        };
        assert!(refusal(ffn).contains("`ffn_multipliers`: tensor `transformer.layers.0.ffn."));
    }

    #[test]
    fn rejects_too_many_heads() {
        let settings = LayerWiseConfig {
            model_dim: 2560,
            head_dim: 2,
            qkv_multipliers: Multipliers::Uniform(64.0),
            ..gpt_test()
        };
        assert_eq!(
            refusal(settings),
            "config: `qkv_multipliers`: expected query heads from 1 to 65536, found 81920",
        );
    }

    #[test]
    fn rejects_models_past_a_trillion_parameters() {
        let settings = LayerWiseConfig {
            model_dim: 16_384,
            num_transformer_layers: 1024,
            qkv_multipliers: Multipliers::Uniform(1.0),
            ffn_multipliers: Multipliers::Uniform(3.0),
            ..LayerWiseConfig::default()
        };
        let message = refusal(settings);
        assert!(
            message.starts_with("config: `num_transformer_layers`: the model"),
            "{message}"
        );
    }
}
