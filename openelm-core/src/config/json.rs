//! `config.json` to [`Config`] and back, in the keys of Apple's `configuration_openelm.py`.
//!
//! Hugging Face's class computes the heads from `qkv_multipliers` and `num_gqa_groups` and ignores
//! the lists; mlx-lm reads the lists. A file in which the two differ describes two models, and is
//! refused.

use std::{fs::File, io::Read, ops::RangeInclusive, path::Path};

use serde_json::{Value, json};

use super::{
    config::{Config, Layer},
    keys::{Keys, MAX_BYTES},
    layer_wise::{self, LayerWiseConfig},
    scaling::Multipliers,
};
use crate::{
    error::{Error, Result},
    hub_cache,
    lookup::{PathKind, path_kind},
};

const FILE_NAME: &str = "config.json";

impl Config {
    /// Reads a model folder's `config.json`, also in the Hugging Face Hub cache, or the file itself.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`] or [`Error::Io`] if it cannot be read, else as
    /// [`from_json`](Self::from_json).
    pub fn load(folder_or_file: impl AsRef<Path>) -> Result<Self> {
        let given = folder_or_file.as_ref();
        let path = match path_kind(given)? {
            Some(PathKind::Folder) => hub_cache::resolve(given, &[FILE_NAME])?.join(FILE_NAME),
            _ => given.to_path_buf(),
        };
        if path_kind(&path)?.is_none() {
            return Err(Error::missing_file(
                path,
                "the model's config.json is missing",
            ));
        }
        let file = File::open(&path).map_err(Error::io(&path))?;
        let mut bytes = Vec::new();
        // One byte over the limit is enough to detect an oversized file.
        file.take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(&path))?;
        read(&bytes, &path)
    }

    /// Reads the text of a `config.json`; errors name `path`.
    ///
    /// Heads may be lists (`num_query_heads`, `num_kv_heads`), computed from `qkv_multipliers` and
    /// `num_gqa_groups`, or both if they agree. Unknown keys are kept, unless their names show
    /// that they change the computation.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the key that is missing, malformed, out of range, contradicted by
    /// another or not supported.
    pub fn from_json(text: &str, path: impl AsRef<Path>) -> Result<Self> {
        read(text.as_bytes(), path.as_ref())
    }

    /// The text of a `config.json` that Hugging Face's class, mlx-lm and this crate read.
    ///
    /// Heads and FFN multipliers are lists with one entry per layer, as Apple writes them. Unused
    /// keys are written back.
    pub fn to_json(&self) -> String {
        write(self)
    }
}

/// Reads a `config.json`; errors name `path`.
fn read(bytes: &[u8], path: &Path) -> Result<Config> {
    let mut keys = Keys::parse(bytes, path)?;
    // Newer versions of transformers write lists.
    keys.unwrap_single("bos_token_id");
    keys.unwrap_single("eos_token_id");
    keys.word("model_type", &["openelm"], None)?;
    keys.word("activation_fn_name", &["swish", "silu"], Some("swish"))?;
    keys.word("normalization_layer_name", &["rms_norm"], Some("rms_norm"))?;
    let default = LayerWiseConfig::default();

    let qkv_multipliers = keys.multipliers("qkv_multipliers")?;
    let gqa_stated = keys.contains("num_gqa_groups");
    let layers = keys.integer("num_transformer_layers", layer_wise::LAYERS, None)?;
    let settings = LayerWiseConfig {
        model_dim: keys.integer("model_dim", layer_wise::MODEL_DIM, None)?,
        num_transformer_layers: layers,
        head_dim: keys.integer("head_dim", layer_wise::HEAD_DIM, None)?,
        num_gqa_groups: keys.optional_integer("num_gqa_groups", layer_wise::GQA_GROUPS)?,
        // Without multipliers, the lists of heads decide; see `settle_heads`.
        qkv_multipliers: qkv_multipliers.clone().unwrap_or(Multipliers::Uniform(1.0)),
        ffn_multipliers: match keys.multipliers("ffn_multipliers")? {
            // mlx-lm reads a list as one multiplier per layer if the length fits.
            Some(Multipliers::Range(first, last)) if layers == 2 => {
                Multipliers::PerLayer(vec![first, last])
            }
            Some(multipliers) => multipliers,
            None => return Err(keys.missing("ffn_multipliers", "a number or a list of numbers")),
        },
        ffn_dim_divisor: keys.integer("ffn_dim_divisor", layer_wise::FFN_DIM_DIVISOR, None)?,
        vocab_size: keys.integer("vocab_size", layer_wise::VOCAB_SIZE, None)?,
        max_context_length: keys.integer(
            "max_context_length",
            layer_wise::POSITIONS,
            Some(default.max_context_length),
        )?,
        ffn_with_glu: keys.flag("ffn_with_glu", Some(default.ffn_with_glu))?,
        // If absent, these two are false in Hugging Face's class and true in mlx-lm.
        normalize_qk_projections: keys.flag("normalize_qk_projections", None)?,
        share_input_output_layers: keys.flag("share_input_output_layers", None)?,
        rms_norm_eps: keys.number(
            "rms_norm_eps",
            layer_wise::RMS_NORM_EPS,
            default.rms_norm_eps,
        )?,
        rope_freq_constant: keys.number(
            "rope_freq_constant",
            layer_wise::ROPE_FREQ_CONSTANT,
            default.rope_freq_constant,
        )?,
        rope_max_length: keys.integer(
            "rope_max_length",
            layer_wise::POSITIONS,
            Some(default.rope_max_length),
        )?,
        bos_token_id: keys.integer("bos_token_id", TOKEN_ID, Some(default.bos_token_id))?,
        eos_token_id: keys.integer("eos_token_id", TOKEN_ID, Some(default.eos_token_id))?,
    };
    settings.check(path)?;
    if qkv_multipliers.is_some() && !gqa_stated {
        return Err(keys.missing(
            "num_gqa_groups",
            "an integer or null beside qkv_multipliers",
        ));
    }

    let mut config = Config::scale(settings);
    config.heads_scaled = qkv_multipliers.is_some();
    if let Some((query_list, kv_list)) = head_lists(&mut keys, layers, config.heads_scaled)? {
        settle_heads(&mut config, &query_list, &kv_list, path)?;
    }
    config.extra = keys.rest(&config.settings)?;
    config.check_sizes(path)
}

/// Writes a `config.json` as Apple does.
fn write(config: &Config) -> String {
    let settings = &config.settings;
    let heads = |of: fn(&Layer) -> usize| config.layers.iter().map(of).collect::<Vec<_>>();
    let mut map = config.extra.clone();
    let mut put = |key: &str, value: Value| map.insert(key.into(), value);

    put("model_type", json!("openelm"));
    put("activation_fn_name", json!("swish"));
    put("normalization_layer_name", json!("rms_norm"));
    put("model_dim", json!(settings.model_dim));
    put("num_transformer_layers", json!(config.layers.len()));
    put("head_dim", json!(settings.head_dim));
    put("num_query_heads", json!(heads(|layer| layer.q_heads)));
    put("num_kv_heads", json!(heads(|layer| layer.kv_heads)));
    if let Some(multipliers) = config.qkv_multipliers() {
        put("qkv_multipliers", multipliers_json(multipliers));
    }
    if config.heads_scaled || settings.num_gqa_groups.is_some() {
        put("num_gqa_groups", json!(settings.num_gqa_groups));
    }
    put(
        "ffn_multipliers",
        json!(settings.ffn_multipliers.per_layer(config.layers.len())),
    );
    put("ffn_dim_divisor", json!(settings.ffn_dim_divisor));
    put("ffn_with_glu", json!(settings.ffn_with_glu));
    put(
        "normalize_qk_projections",
        json!(settings.normalize_qk_projections),
    );
    put(
        "share_input_output_layers",
        json!(settings.share_input_output_layers),
    );
    put("vocab_size", json!(settings.vocab_size));
    put("max_context_length", json!(settings.max_context_length));
    put(
        "rope_freq_constant",
        number_json(settings.rope_freq_constant),
    );
    put("rope_max_length", json!(settings.rope_max_length));
    put("bos_token_id", json!(settings.bos_token_id));
    put("eos_token_id", json!(settings.eos_token_id));
    // Apple's files do not have this key: their class fixes the value.
    if settings.rms_norm_eps != LayerWiseConfig::default().rms_norm_eps {
        put("rms_norm_eps", json!(settings.rms_norm_eps));
    }
    format!("{:#}\n", Value::Object(map))
}

/// Range of token ids for any vocabulary; `check` compares them with `vocab_size`.
const TOKEN_ID: RangeInclusive<usize> = 0..=*layer_wise::VOCAB_SIZE.end() - 1;

/// The lists of query and KV heads; only a file with multipliers (`scaled`) may omit them.
fn head_lists(
    keys: &mut Keys<'_>,
    layers: usize,
    scaled: bool,
) -> Result<Option<(Vec<usize>, Vec<usize>)>> {
    let query_list = keys.heads("num_query_heads", layers)?;
    let kv_list = keys.heads("num_kv_heads", layers)?;
    let (key, expected) = match (query_list, kv_list) {
        (Some(query_list), Some(kv_list)) => return Ok(Some((query_list, kv_list))),
        (None, None) if scaled => return Ok(None),
        (None, None) => ("num_query_heads", "a list, or qkv_multipliers in its place"),
        (Some(_), None) => ("num_kv_heads", "a list beside num_query_heads"),
        (None, Some(_)) => ("num_query_heads", "a list beside num_kv_heads"),
    };
    Err(keys.missing(key, expected))
}

/// Replaces the heads computed from multipliers by the lists, which must agree with the other
/// keys.
fn settle_heads(
    config: &mut Config,
    query_list: &[usize],
    kv_list: &[usize],
    path: &Path,
) -> Result<()> {
    let groups = config.settings.num_gqa_groups;
    let lists = std::iter::zip(query_list, kv_list);
    for (i, (layer, (&q_heads, &kv_heads))) in config.layers.iter_mut().zip(lists).enumerate() {
        if config.heads_scaled && q_heads != layer.q_heads {
            let problem = format!(
                "layer {i} has {q_heads} in this list and {} by qkv_multipliers and \
                 num_gqa_groups",
                layer.q_heads,
            );
            return Err(Error::config(path, "num_query_heads", problem));
        }
        if config.heads_scaled && kv_heads != layer.kv_heads {
            let problem = format!(
                "layer {i} has {kv_heads} in this list and {} by qkv_multipliers and \
                 num_gqa_groups",
                layer.kv_heads,
            );
            return Err(Error::config(path, "num_kv_heads", problem));
        }
        if !q_heads.is_multiple_of(kv_heads) {
            let problem = format!(
                "layer {i} has {q_heads} query heads, not a multiple of its {kv_heads} \
                 KV heads"
            );
            return Err(Error::config(path, "num_kv_heads", problem));
        }
        if let Some(groups) = groups
            && q_heads != kv_heads * groups
        {
            let problem = format!(
                "layer {i} has {q_heads} query heads on {kv_heads} KV heads, not {groups} on each"
            );
            return Err(Error::config(path, "num_gqa_groups", problem));
        }
        (layer.q_heads, layer.kv_heads) = (q_heads, kv_heads);
    }
    Ok(())
}

fn multipliers_json(multipliers: &Multipliers) -> Value {
    match multipliers {
        Multipliers::Uniform(value) => json!(value),
        Multipliers::Range(first, last) => json!([first, last]),
        Multipliers::PerLayer(list) => json!(list),
    }
}

/// A whole number without its `.0`, as Apple writes the rotary base.
fn number_json(value: f64) -> Value {
    // Settings stay within 1e12, where the conversion is exact.
    if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
