//! Hugging Face PEFT's adapter folder: `adapter_model.safetensors` and `adapter_config.json`
//! (`peft/tuners/lora/config.py`, `peft/utils/save_and_load.py`).
//!
//! PEFT's `lora_A` `[r, in]` and `lora_B` `[out, r]` are the transposes of mlx-lm's.

use std::{collections::BTreeMap, fs, path::Path};

use mlx_rs::Array;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    adapter::{Adapter, AdapterKind},
    mlx_lm::CONFIG,
    torch_tensors,
};
use crate::{
    config::tensor_names::EMBEDDING,
    error::{Error, Result},
    files::write_file,
    json,
    model::Module,
    text_file::{self, MAX_SETTINGS},
    weights::{Tensors, tensor_file},
};

pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// The keys that this crate writes. PEFT writes more.
pub(super) const KEYS: [&str; 16] = [
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "modules_to_save",
];
/// The weights of versions before 0.6, in PyTorch's format.
pub(super) const TORCH_WEIGHTS: &str = "adapter_model.bin";

/// The prefix of a module's name.
const PREFIX: &str = "base_model.model.";

/// The reason why DoRA of an embedding is neither read nor written.
const COLUMNS: &str = "PEFT's DoRA of an embedding scales its columns, this one its rows";

/// The keys of PEFT's `LoraConfig` that affect the computation.
#[derive(Deserialize)]
struct Settings {
    peft_type: String,
    #[serde(default = "default_rank")]
    r: usize,
    /// In double precision, so that a scale is exact after conversion to an alpha.
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    lora_dropout: Option<f32>,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
    /// Ranks and alphas of individual modules; the first matching pattern counts, so the order of
    /// the file is kept.
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// PEFT's default of `r`.
fn default_rank() -> usize {
    8
}

/// PEFT's default of `lora_alpha`.
fn default_alpha() -> f64 {
    8.0
}

/// Settings that change the computation unless they are off.
const UNSUPPORTED: [&str; 14] = [
    "alora_invocation_tokens",
    "arrow_config",
    "bias",
    "enable_lora",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// Initialisations that change the base model's weights.
const CHANGES_BASE: [&str; 5] = ["corda", "loftq", "lora_ga", "olora", "pissa"];

pub(super) fn load(folder: &Path) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let wrong = |problem: String| Error::adapter(&path, problem);
    let text = text_file::read(&path, MAX_SETTINGS, wrong)?;
    let settings: Settings = json::parse(&text).map_err(|e| wrong(e.to_string()))?;
    settings.check().map_err(wrong)?;

    let mut path = folder.join(WEIGHTS);
    let tensors = if path.is_file() {
        let tensors = tensor_file::load(&path)?;
        tensor_file::require_float(&path, &tensors)?;
        tensors
    } else {
        path = folder.join(TORCH_WEIGHTS);
        torch_tensors::load(&path)?
    };
    let kind = if settings.dora() {
        AdapterKind::Dora
    } else {
        AdapterKind::Lora
    };
    let modules = modules(tensors, &settings, &path)?;
    Ok(Adapter {
        kind,
        modules,
        weights: Tensors::new(),
        dropout: settings.lora_dropout.unwrap_or(0.0),
        tied_head: false,
        origin: None,
    })
}

impl Settings {
    /// Refuses a setting that changes the computation and is not supported.
    fn check(&self) -> Result<(), String> {
        if self.r == 0 {
            return Err("`r`: expected at least 1, found 0".into());
        }
        let is_on = |key: &&&str| self.rest.get(**key).is_some_and(|value| !is_off(value));
        // Newer versions have further variants, `use_…`.
        let is_variant =
            |(key, value): &(&String, &Value)| key.starts_with("use_") && **value == true;
        let init = self.init_lora_weights.as_str().unwrap_or_default();
        if self.peft_type != "LORA" {
            return Err(format!(
                "`peft_type`: expected LORA, found {}",
                self.peft_type
            ));
        }
        let key = if CHANGES_BASE.iter().any(|known| init.starts_with(known)) {
            "init_lora_weights"
        } else if let Some(&key) = UNSUPPORTED.iter().find(is_on) {
            key
        } else if let Some((key, _)) = self.rest.iter().find(is_variant) {
            key
        } else {
            return Ok(());
        };
        let found = match key {
            "init_lora_weights" => &self.init_lora_weights,
            other => self.rest.get(other).unwrap_or(&Value::Null),
        };
        let found: String = found.to_string().chars().take(60).collect();
        Err(format!(
            "`{key}` is {found}: only LoRA, rsLoRA and DoRA are supported, without biases and saved modules \
             and on the weights of the model as they are"
        ))
    }

    fn dora(&self) -> bool {
        self.use_dora == Some(true)
    }

    /// The scale of the module `name` of rank `rank`.
    fn scale(&self, name: &str, rank: usize) -> Result<f32, String> {
        let expected = own(self.rank_pattern.as_ref(), name)?.unwrap_or(self.r as f64);
        if expected != rank as f64 {
            return Err(format!(
                "`{name}`: the settings give it rank {expected}, its tensors have {rank}"
            ));
        }
        let alpha = own(self.alpha_pattern.as_ref(), name)?.unwrap_or(self.lora_alpha);
        let rank = rank as f64;
        let divisor = if self.use_rslora == Some(true) {
            rank.sqrt()
        } else {
            rank
        };
        Ok((alpha / divisor) as f32)
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The value of `patterns` for the module `name`. A pattern matches the end of a name, as in PEFT.
fn own(patterns: Option<&Map<String, Value>>, name: &str) -> Result<Option<f64>, String> {
    for (pattern, value) in patterns.into_iter().flatten() {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .map_err(|e| format!("pattern `{pattern}`: {e}"))?;
        if regex.is_match(name) {
            let number = value.as_f64();
            return number
                .map(Some)
                .ok_or_else(|| format!("pattern `{pattern}`: expected a number, found {value}"));
        }
    }
    Ok(None)
}

fn modules(tensors: Tensors, settings: &Settings, path: &Path) -> Result<BTreeMap<String, Module>> {
    let wrong = |problem: String| Error::adapter(path, problem);
    let mut parts: BTreeMap<String, [Option<Array>; 3]> = BTreeMap::new();
    for (name, array) in tensors {
        let Some((stem, slot)) = split(&name) else {
            return Err(wrong(format!("tensor `{name}` is not a LoRA tensor")));
        };
        let dimensions = if slot == 2 { 1 } else { 2 };
        if array.ndim() != dimensions {
            return Err(wrong(format!(
                "tensor `{name}`: expected {dimensions} dimensions, found shape {:?}",
                array.shape()
            )));
        }
        parts.entry(stem.to_owned()).or_default()[slot] = Some(array);
    }
    if settings.dora() && parts.contains_key(EMBEDDING) {
        return Err(wrong(format!("`{EMBEDDING}`: {COLUMNS}")));
    }
    let mut modules = BTreeMap::new();
    for (name, [a, b, m]) in parts {
        let (Some(a), Some(b)) = (a, b) else {
            return Err(wrong(format!("`{name}` lacks `lora_A` or `lora_B`")));
        };
        if m.is_some() != settings.dora() {
            return Err(wrong(format!(
                "`{name}`: a magnitude requires, and is required by, `use_dora`"
            )));
        }
        let scale = settings.scale(&name, a.dim(0) as usize);
        let scale = scale.map_err(wrong)?;
        modules.insert(
            name,
            Module {
                lora_a: a.t(),
                lora_b: b.t(),
                m,
                scale,
            },
        );
    }
    if modules.is_empty() {
        return Err(wrong("it holds no tensors".into()));
    }
    Ok(modules)
}

/// The module's name, and the index of its tensor `name`.
fn split(name: &str) -> Option<(&str, usize)> {
    const PARTS: [(&str, usize); 6] = [
        (".lora_A.weight", 0),
        (".lora_B.weight", 1),
        (".lora_embedding_A", 0),
        (".lora_embedding_B", 1),
        (".lora_magnitude_vector", 2),
        (".lora_magnitude_vector.weight", 2),
    ];
    let name = name.strip_prefix(PREFIX)?;
    PARTS
        .iter()
        .find_map(|(part, slot)| Some((name.strip_suffix(part)?, *slot)))
}

pub(super) fn save(adapter: &Adapter, folder: &Path, base: &str) -> Result<()> {
    let wrong = |problem: &str| Error::adapter(folder, problem);
    let Some(first) = adapter.modules.values().next() else {
        return Err(wrong(
            "PEFT's format holds adapters, not whole weights; fuse it instead",
        ));
    };
    if adapter.tied_head && adapter.modules.contains_key(EMBEDDING) {
        return Err(wrong(
            "PEFT adapts the embedding's look-up alone; this adapter changes the tied head, too",
        ));
    }
    if adapter.kind == AdapterKind::Dora && adapter.modules.contains_key(EMBEDDING) {
        return Err(wrong(COLUMNS));
    }
    if let Some(name) = adapter.without_magnitudes() {
        return Err(wrong(&format!(
            "PEFT's format has magnitudes of all matrices or of none; `{name}` of this DoRA adapter \
             has none"
        )));
    }
    let rank = first.lora_b.dim(0);
    let mut tensors = Tensors::new();
    let (mut ranks, mut alphas) = (BTreeMap::new(), BTreeMap::new());
    for (name, module) in &adapter.modules {
        let (a, b) = if name == EMBEDDING {
            ("lora_embedding_A", "lora_embedding_B")
        } else {
            ("lora_A.weight", "lora_B.weight")
        };
        tensors.insert(format!("{PREFIX}{name}.{a}"), module.lora_a.t());
        tensors.insert(format!("{PREFIX}{name}.{b}"), module.lora_b.t());
        if let Some(m) = &module.m {
            tensors.insert(format!("{PREFIX}{name}.lora_magnitude_vector"), m.clone());
        }
        let own = module.lora_b.dim(0);
        if own != rank {
            ranks.insert(name.clone(), own);
        }
        if own != rank || module.scale != first.scale {
            alphas.insert(name.clone(), f64::from(module.scale) * f64::from(own));
        }
    }
    let targets: Vec<&str> = adapter.modules.keys().map(String::as_str).collect();
    let settings = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": f64::from(first.scale) * f64::from(rank),
        "lora_dropout": adapter.dropout,
        "use_rslora": false,
        "use_dora": adapter.kind == AdapterKind::Dora,
        "target_modules": targets,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": Value::Null,
    });
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    write_file(folder.join(CONFIG), format!("{settings:#}\n"))?;
    tensor_file::save(&folder.join(WEIGHTS), &tensors, ("format", "pt"))
}
