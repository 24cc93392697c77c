//! The keys of a `config.json` that OpenELM does not define: kept, or refused if their names show
//! that they change the computation.
//!
//! Tools often add metadata to these files, so a list of allowed keys would refuse valid models; an
//! ignored key such as `rope_scaling` would give wrong results.

use serde_json::{Map, Value};

use super::{
    aliases::is_alias,
    keys::{Keys, shorten, show},
    layer_wise::LayerWiseConfig,
};
use crate::error::{Error, Result};

impl Keys<'_> {
    /// The remaining keys, if none of them changes the computation or contradicts `settings`.
    pub(crate) fn rest(self, settings: &LayerWiseConfig) -> Result<Map<String, Value>> {
        self.check_aliases(settings)?;
        self.check_pairs()?;
        for key in ["dtype", "torch_dtype"] {
            if let Some(value) = self.map.get(key).filter(|v| !v.is_string() && !v.is_null()) {
                return Err(self.unexpected(key, "the name of a type", value));
            }
        }
        match self.map.iter().find(|(key, value)| computes(key, value)) {
            None => Ok(self.map),
            Some((key, value)) => {
                let problem = format!("not supported, found {}", show(value));
                Err(Error::config(self.path, shorten(key), problem))
            }
        }
    }
}

/// Keys with names of model parts that hold Hugging Face's metadata.
const BOOKKEEPING: [&str; 6] = [
    "attn_implementation",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "tie_encoder_decoder",
];

/// Prefixes of names of model parts.
#[rustfmt::skip]
const MODEL_PARTS: [&str; 31] = [
    "activation", "alibi", "attention_", "attn_", "bias", "embedding", "ffn", "final_logit",
    "head", "hidden", "intermediate", "kv_", "layer", "lm_head", "logit", "mlp", "model_dim",
    "moe", "norm", "num_", "parallel_", "partial_", "qk", "query", "residual", "rms", "rope",
    "rotary", "scale", "sliding", "tie_",
];

/// True if the name of an unknown key shows that it changes the computation; other keys are kept.
/// Null, disabled biases, and dropout, which only training uses, change nothing.
fn computes(key: &str, value: &Value) -> bool {
    let known = is_alias(key) || BOOKKEEPING.contains(&key);
    let off = value.is_null()
        || (*value == false && (key.ends_with("bias") || key.ends_with("_window")))
        || key.contains("dropout");
    if known || off {
        return false;
    }
    let name = key.strip_prefix("use_").unwrap_or(key);
    MODEL_PARTS.iter().any(|part| name.starts_with(part))
        || ["_bias", "_multiplier", "_multipliers", "_scaling"]
            .iter()
            .any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    /// The result of [`Keys::rest`] for a single key with OpenELM-270M's settings.
    fn rest(key: &str, value: Value) -> Result<Map<String, Value>> {
        let bytes = json!({ key: value }).to_string();
        Keys::parse(bytes.as_bytes(), Path::new("c"))?.rest(&LayerWiseConfig::default())
    }

    #[test]
    fn metadata_keys_are_kept() {
        for (key, value) in [
            ("_name_or_path", json!("apple/OpenELM-270M")),
            ("_attn_implementation_autoset", json!(true)),
            ("dtype", json!("float16")),
            ("pad_token_id", json!(0)),
            ("unsloth_version", json!("2025.1")),
            ("quantization", json!({ "group_size": 64, "bits": 4 })),
            ("num_beams", json!(1)),
            ("attention_bias", json!(false)),
            ("attention_dropout", json!(0.1)),
            ("attention_probs_dropout_prob", json!(0.1)),
            ("use_sliding_window", json!(false)),
            ("rope_scaling", Value::Null),
            ("", json!("no name")),
        ] {
            assert_eq!(rest(key, value.clone()).unwrap()[key], value, "{key}");
        }
    }

    #[test]
    fn rejects_unknown_model_parts() {
        for (key, value) in [
            ("attention_bias", json!(true)),
            ("attn_logit_softcapping", json!(50.0)),
            ("ffn_with_glue", json!(false)),
            ("num_experts", json!(8)),
            ("norm_bias", json!(true)),
            ("rms_norm_epsilons", json!(1e-5)),
            ("sliding_window", json!(4096)),
            ("use_sliding_window", json!(true)),
            ("qkv_bias", json!(true)),
            ("embedding_multiplier", json!(12)),
        ] {
            let message = rest(key, value).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("c: `{key}`: not supported, found ")),
                "{message}"
            );
        }
    }
}
