//! Hugging Face PEFT's adapter folder: `adapter_model.safetensors` and `adapter_config.json`
//! (`peft/tuners/lora/config.py`, `peft/utils/save_and_load.py`).
//!
//! PEFT's `lora_A` `[r, in]` and `lora_B` `[out, r]` are the transposes of mlx-lm's.

use std::{collections::BTreeMap, fs, path::Path};

use mlx_rs::Array;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Adapter, AdapterKind, EMBEDDING, LoraOptions, Module, mlx_lm::CONFIG};
use crate::{
    error::{Error, Result},
    tensor_file::{self, Tensors},
};

pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// What stands before a module's name.
const PREFIX: &str = "base_model.model.";

/// PEFT's `LoraConfig`, as far as it matters to what is computed.
#[derive(Deserialize)]
struct Settings {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    lora_dropout: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f32>,
}

pub(super) fn load(folder: &Path) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let wrong = |problem: String| Error::Adapter {
        path: path.clone(),
        problem,
    };
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let settings: Settings = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    settings.check().map_err(wrong)?;

    let path = folder.join(WEIGHTS);
    let tensors = tensor_file::load(&path)?;
    tensor_file::require_float(&path, &tensors)?;
    let kind = match settings.use_dora {
        true => AdapterKind::Dora,
        false => AdapterKind::Lora,
    };
    let modules = modules(tensors, &settings, &path)?;
    Ok(Adapter {
        kind,
        modules,
        weights: Tensors::new(),
        dropout: settings.lora_dropout,
        tied_head: false,
    })
}

impl Settings {
    /// Names a setting that changes what is computed in a way that is not supported.
    fn check(&self) -> Result<(), String> {
        let unsupported = [
            ("peft_type", self.peft_type != "LORA"),
            ("fan_in_fan_out", self.fan_in_fan_out),
            ("lora_bias", self.lora_bias),
            ("bias", self.bias.as_deref().unwrap_or("none") != "none"),
            (
                "modules_to_save",
                self.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()),
            ),
        ];
        match unsupported.iter().find(|(_, found)| *found) {
            Some((key, _)) => Err(format!(
                "`{key}`: only LoRA, rsLoRA and DoRA without biases and saved modules are supported"
            )),
            None if self.r == 0 => Err("`r`: expected at least 1, found 0".into()),
            None => Ok(()),
        }
    }

    /// The scale of the module `name` of rank `rank`. A pattern is the end of a name, as PEFT
    /// matches it.
    fn scale(&self, name: &str, rank: usize) -> f32 {
        let ends_in = |pattern: &str| {
            let whole = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
            whole.is_ok_and(|regex| regex.is_match(name))
        };
        let own = self.alpha_pattern.iter().find(|(key, _)| ends_in(key));
        let alpha = own.map_or(self.lora_alpha, |(_, alpha)| *alpha);
        LoraOptions::scale_of(alpha, rank, self.use_rslora)
    }
}

fn modules(tensors: Tensors, settings: &Settings, path: &Path) -> Result<BTreeMap<String, Module>> {
    let wrong = |problem: String| Error::Adapter {
        path: path.to_path_buf(),
        problem,
    };
    let mut parts: BTreeMap<String, [Option<Array>; 3]> = BTreeMap::new();
    for (name, array) in tensors {
        let Some((stem, slot)) = split(&name) else {
            return Err(wrong(format!("tensor `{name}` is none of LoRA's")));
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
    let mut modules = BTreeMap::new();
    for (name, [a, b, m]) in parts {
        let (Some(a), Some(b)) = (a, b) else {
            return Err(wrong(format!("`{name}` lacks `lora_A` or `lora_B`")));
        };
        if m.is_some() != settings.use_dora && name != EMBEDDING {
            return Err(wrong(format!(
                "`{name}`: a magnitude is there if, and only if, `use_dora` is set"
            )));
        }
        let scale = settings.scale(&name, a.dim(0) as usize);
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

/// The module's name and which of its tensors `name` is.
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
    let wrong = |problem: &str| Error::Adapter {
        path: folder.to_path_buf(),
        problem: problem.into(),
    };
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
    let rank = first.lora_b.dim(0);
    let mut tensors = Tensors::new();
    let (mut ranks, mut alphas) = (BTreeMap::new(), BTreeMap::new());
    for (name, module) in &adapter.modules {
        let (a, b) = match name == EMBEDDING {
            true => ("lora_embedding_A", "lora_embedding_B"),
            false => ("lora_A.weight", "lora_B.weight"),
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
            alphas.insert(name.clone(), module.scale * own as f32);
        }
    }
    let targets: Vec<&str> = adapter.modules.keys().map(String::as_str).collect();
    let settings = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": first.scale * rank as f32,
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
    tensor_file::save(&folder.join(WEIGHTS), &tensors, ("format", "pt".into()))?;
    let path = folder.join(CONFIG);
    let text = format!("{settings:#}\n");
    tensor_file::write_beside(&path, |partial| {
        fs::write(partial, text).map_err(Error::io(&path))
    })
}
