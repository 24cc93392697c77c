//! Conversion between a model's settings and the metadata of llama.cpp's `openelm` architecture.
//!
//! The keys are those that llama.cpp's converter writes and its loader reads. llama.cpp supports
//! OpenELM as Apple released it: gated FFN, QK norm, tied embedding; other variants are refused. It
//! has no keys for the multipliers of heads and widths (`qkv_multipliers`, `ffn_multipliers`,
//! `ffn_dim_divisor`): the reader computes settings that give the same layers.

use std::path::Path;

use serde_json::{Map, json};

use super::{
    scaling::{ffn_scaling, groups, head_scaling},
    vocabulary::Vocabulary,
};
use crate::{
    config::{Config, LAYERS, Layer, LayerWiseConfig, POSITIONS, outside},
    error::{Error, Result},
    formats::gguf::{FileType, GgufReader, Value},
};

/// The metadata of a model called `name`, in the order in which to write it.
///
/// Without a vocabulary the file states that it has none; llama.cpp can load it and run on ids.
///
/// # Errors
///
/// [`Error::Config`] for a variant that llama.cpp does not support, [`Error::Tokenizer`] if the
/// vocabulary is larger than the model's.
pub fn metadata(
    config: &Config,
    name: &str,
    file_type: FileType,
    vocabulary: Option<&Vocabulary>,
) -> Result<Vec<(String, Value)>> {
    check_variant(config)?;
    let size = |key: &str, value: usize| match u32::try_from(value) {
        Ok(value) => Ok(Value::Uint32(value)),
        Err(_) => Err(Error::config(
            Path::new("config"),
            key,
            format!("{value} is too large"),
        )),
    };
    // Within `layer_wise::HEADS` and the tensor sizes, so the conversion is exact.
    let per_layer =
        |of: fn(&Layer) -> usize| Value::ints(config.layers().iter().map(|layer| of(layer) as i32));
    let head_dim = size("head_dim", config.head_dim())?;

    let mut entries: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, value: Value| entries.push((key.into(), value));
    put("general.architecture", ARCHITECTURE.into());
    put("general.type", "model".into());
    put("general.name", name.into());
    put("general.file_type", file_type.id().into());
    put("general.quantization_version", 2u32.into());
    put(
        "openelm.block_count",
        size("num_transformer_layers", config.layers().len())?,
    );
    put(
        "openelm.context_length",
        size("max_context_length", config.max_context_length())?,
    );
    put(
        "openelm.embedding_length",
        size("model_dim", config.model_dim())?,
    );
    put(
        "openelm.vocab_size",
        size("vocab_size", config.vocab_size())?,
    );
    put(
        "openelm.feed_forward_length",
        per_layer(|layer| layer.ffn_dim),
    );
    put(
        "openelm.attention.head_count",
        per_layer(|layer| layer.q_heads),
    );
    put(
        "openelm.attention.head_count_kv",
        per_layer(|layer| layer.kv_heads),
    );
    put("openelm.attention.key_length", head_dim.clone());
    put("openelm.attention.value_length", head_dim.clone());
    put(
        "openelm.attention.layer_norm_rms_epsilon",
        (config.rms_norm_eps() as f32).into(),
    );
    put("openelm.rope.dimension_count", head_dim);
    put(
        "openelm.rope.freq_base",
        (config.rope_freq_constant() as f32).into(),
    );
    match vocabulary {
        Some(vocabulary) => entries.extend(vocabulary.metadata(config.vocab_size())?),
        None => put("tokenizer.ggml.model", "no_vocab".into()),
    }
    Ok(entries)
}

/// The architecture that a file's metadata describes.
///
/// # Errors
///
/// [`Error::Config`] naming a key of the metadata that is missing, malformed or not supported, or
/// the key of `config.json` that contradicts the metadata.
pub fn config_from_gguf(reader: &GgufReader) -> Result<Config> {
    let keys = Keys(reader);
    keys.check_architecture()?;
    let layers = keys.size("openelm.block_count")?;
    if !LAYERS.contains(&layers) {
        let problem = outside("an integer", &LAYERS, layers);
        return Err(keys.fault("openelm.block_count", problem));
    }
    let model_dim = keys.size("openelm.embedding_length")?.max(1);
    let head_dim = keys.size("openelm.attention.key_length")?.max(1);
    for key in [
        "openelm.attention.value_length",
        "openelm.rope.dimension_count",
    ] {
        if keys.has(key) && keys.size(key)? != head_dim {
            let problem = format!("expected {head_dim}, the width of a key");
            return Err(keys.fault(key, problem));
        }
    }
    let q_heads = keys.per_layer("openelm.attention.head_count", layers)?;
    let kv_heads = if keys.has("openelm.attention.head_count_kv") {
        keys.per_layer("openelm.attention.head_count_kv", layers)?
    } else {
        q_heads.clone()
    };
    let ffn_dims = keys.per_layer("openelm.feed_forward_length", layers)?;
    let context = keys.size("openelm.context_length")?;
    let (ffn_multipliers, ffn_dim_divisor) = ffn_scaling(&ffn_dims, model_dim);

    let default = LayerWiseConfig::default();
    let mut map = Map::new();
    let mut put = |key: &str, value| map.insert(key.into(), value);
    put("model_type", json!("openelm"));
    put("num_transformer_layers", json!(layers));
    put("model_dim", json!(model_dim));
    put("head_dim", json!(head_dim));
    put("num_query_heads", json!(q_heads));
    put("num_kv_heads", json!(kv_heads));
    if let Some(groups) = groups(&q_heads, &kv_heads) {
        put("num_gqa_groups", json!(groups));
        if let Some(multipliers) = head_scaling(&q_heads, model_dim, head_dim, groups) {
            put("qkv_multipliers", multipliers);
        }
    }
    put("ffn_multipliers", json!(ffn_multipliers));
    put("ffn_dim_divisor", json!(ffn_dim_divisor));
    put("ffn_with_glu", json!(true));
    put("normalize_qk_projections", json!(true));
    put("share_input_output_layers", json!(true));
    put("vocab_size", json!(keys.vocab_size()?));
    put("max_context_length", json!(context));
    // As in Apple's files; not a limit.
    let rope_length = context.saturating_mul(2).clamp(1, *POSITIONS.end());
    put("rope_max_length", json!(rope_length));
    let base = keys.float("openelm.rope.freq_base", Some(default.rope_freq_constant))?;
    put("rope_freq_constant", json!(base));
    let eps = keys.float("openelm.attention.layer_norm_rms_epsilon", None)?;
    put("rms_norm_eps", json!(eps));
    for (key, ours, default) in [
        (
            "tokenizer.ggml.bos_token_id",
            "bos_token_id",
            default.bos_token_id,
        ),
        (
            "tokenizer.ggml.eos_token_id",
            "eos_token_id",
            default.eos_token_id,
        ),
    ] {
        let id = if keys.has(key) {
            keys.size(key)?
        } else {
            default
        };
        put(ours, json!(id));
    }
    Config::from_json(&serde_json::Value::Object(map).to_string(), reader.path())
}

/// `general.name`, if the file has one.
pub fn name_from_gguf(reader: &GgufReader) -> Option<&str> {
    reader.metadata().get("general.name")?.as_str()
}

const ARCHITECTURE: &str = "openelm";

/// Refuses variants that llama.cpp's `openelm` does not support.
pub(crate) fn check_variant(config: &Config) -> Result<()> {
    for (key, stated) in [
        ("ffn_with_glu", config.ffn_with_glu()),
        (
            "normalize_qk_projections",
            config.normalize_qk_projections(),
        ),
        (
            "share_input_output_layers",
            config.share_input_output_layers(),
        ),
    ] {
        if !stated {
            let problem = "llama.cpp's openelm, and so GGUF, does not support false";
            return Err(Error::config(Path::new("config"), key, problem));
        }
    }
    Ok(())
}

/// The keys of a file's metadata, with type checks.
struct Keys<'a>(&'a GgufReader);

impl Keys<'_> {
    fn fault(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::config(self.0.path(), key, problem)
    }

    fn has(&self, key: &str) -> bool {
        self.0.metadata().contains_key(key)
    }

    fn get(&self, key: &str) -> Result<&Value> {
        let value = self.0.metadata().get(key);
        value.ok_or_else(|| self.fault(key, "missing from the metadata"))
    }

    fn check_architecture(&self) -> Result<()> {
        let found = self.get("general.architecture")?;
        if found.as_str() != Some(ARCHITECTURE) {
            let problem = format!("expected \"{ARCHITECTURE}\", found {found}");
            return Err(self.fault("general.architecture", problem));
        }
        // RoPE scaling would change the computation.
        let scaled = self.0.metadata().iter().find(|(key, value)| {
            key.starts_with("openelm.rope.scal") && value.as_str() != Some("none")
        });
        match scaled {
            Some((key, value)) => Err(self.fault(key, format!("not supported, found {value}"))),
            None => Ok(()),
        }
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key)?;
        let size = value.as_usize();
        size.ok_or_else(|| self.fault(key, format!("expected an integer, found {value}")))
    }

    fn float(&self, key: &str, default: Option<f64>) -> Result<f64> {
        if let Some(default) = default.filter(|_| !self.has(key)) {
            return Ok(default);
        }
        let value = self.get(key)?;
        let float = value.as_f64().filter(|float| float.is_finite());
        float.ok_or_else(|| self.fault(key, format!("expected a number, found {value}")))
    }

    /// An array with one entry per layer, or one number for all.
    fn per_layer(&self, key: &str, layers: usize) -> Result<Vec<usize>> {
        let value = self.get(key)?;
        let Some(array) = value.as_array() else {
            return Ok(vec![self.size(key)?; layers]);
        };
        let sizes: Option<Vec<usize>> = array.iter().map(Value::as_usize).collect();
        sizes.filter(|sizes| sizes.len() == layers).ok_or_else(|| {
            let problem =
                format!("expected {layers} integers (openelm.block_count), found {value}");
            self.fault(key, problem)
        })
    }

    /// Rows of the embedding, which all keys about the vocabulary must agree with.
    fn vocab_size(&self) -> Result<usize> {
        let embedding = self.0.tensors().get("token_embd.weight");
        let Some(rows) = embedding.and_then(|info| info.shape.first().copied()) else {
            return Err(self.0.malformed("tensor `token_embd.weight` is missing"));
        };
        for key in ["openelm.vocab_size", "tokenizer.ggml.tokens"] {
            if !self.has(key) {
                continue;
            }
            let found = match self.get(key)?.as_array() {
                Some(tokens) => tokens.len(),
                None => self.size(key)?,
            };
            if found != rows {
                let problem = format!("{found} where the embedding has {rows} rows");
                return Err(self.fault(key, problem));
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn rejects_other_variants_by_key() {
        for key in [
            "ffn_with_glu",
            "normalize_qk_projections",
            "share_input_output_layers",
        ] {
            let mut settings = Preset::Size270M.settings();
            match key {
                "ffn_with_glu" => settings.ffn_with_glu = false,
                "normalize_qk_projections" => settings.normalize_qk_projections = false,
                _ => settings.share_input_output_layers = false,
            }
            let config = Config::layer_wise(settings).unwrap();
            let message = metadata(&config, "x", FileType::F16, None)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(&format!("config: `{key}`: llama.cpp's openelm")));
        }
    }
}
