//! CoreNet's names and order of the tensors, and the rows of its embedding.
//!
//! CoreNet's names lack the prefix `transformer.`, and its head is `classifier`. Its embedding has
//! 32,128 rows: LLaMA's 32,000 tokens, a padding token and rows that fill up to a multiple of 128.

use super::{
    config::Config,
    tensor_names::{
        ATTN_NORM, BACKBONE, EMBEDDING, FFN_NORM, HEAD, K_NORM, OUT_PROJ, PROJ_1, PROJ_2, Q_NORM,
        QKV_PROJ, WEIGHT, parse_layer, weight,
    },
};

/// Rows of CoreNet's embedding, with the padding rows.
pub(crate) const CORENET_VOCAB: usize = 32_128;
/// Rows of the embedding without the padding rows.
pub(crate) const VOCAB: usize = 32_000;

/// The parts of a layer in the order of CoreNet's modules (`general_gpt.py`): attention, FFN, norms.
const PARTS: [&str; 8] = [
    QKV_PROJ, Q_NORM, K_NORM, OUT_PROJ, PROJ_1, PROJ_2, FFN_NORM, ATTN_NORM,
];

/// CoreNet's name of the tensor, or of the matrix or norm, that is `name` in Hugging Face's layout.
pub(crate) fn corenet_name(name: &str) -> String {
    match name.strip_prefix(HEAD) {
        Some(rest) => format!("classifier{rest}"),
        None => name.strip_prefix(BACKBONE).unwrap_or(name).into(),
    }
}

impl Config {
    /// [`tensors`](Self::tensors) in the order of CoreNet's modules, which is the order of its state
    /// dicts and of its optimizer's parameters; the names are Hugging Face's.
    pub(crate) fn tensors_in_corenet_order(&self) -> Vec<(String, Vec<usize>)> {
        let place = |name: &str| match parse_layer(name) {
            Some((layer, part)) => {
                let part = part.strip_suffix(WEIGHT).unwrap_or(part);
                let part = PARTS.iter().position(|known| *known == part);
                (layer.saturating_add(1), part.unwrap_or(PARTS.len()))
            }
            None if name == weight(EMBEDDING) => (0, 0),
            None => (usize::MAX, 0),
        };
        let mut tensors = self.tensors();
        tensors.sort_by_key(|(name, _)| place(name));
        tensors
    }
}

#[cfg(test)]
mod tests {
    use crate::config::LayerWiseConfig;

    use super::*;

    /// The order of `named_parameters` of CoreNet's `GeneralGPTModel`.
    #[test]
    fn tensors_have_the_order_of_corenet_modules() {
        let config = Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: 2,
            share_input_output_layers: false,
            ..LayerWiseConfig::default()
        });
        let tensors = config.unwrap().tensors_in_corenet_order();
        let names: Vec<String> = tensors.iter().map(|(name, _)| corenet_name(name)).collect();
        let layer = |index: usize| {
            [
                "attn.qkv_proj",
                "attn.q_norm",
                "attn.k_norm",
                "attn.out_proj",
                "ffn.proj_1",
                "ffn.proj_2",
                "ffn_norm",
                "attn_norm",
            ]
            .map(|part| format!("layers.{index}.{part}.weight"))
        };
        let first = ["token_embeddings.weight".to_owned()];
        let last = ["norm.weight".to_owned(), "classifier.weight".to_owned()];
        let expected = [&first[..], &layer(0), &layer(1), &last].concat();
        assert_eq!(names, expected);
    }
}
