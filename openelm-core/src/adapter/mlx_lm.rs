//! mlx-lm's adapter folder: `adapters.safetensors` and `adapter_config.json`
//! (`mlx_lm/tuner/utils.py`, `load_adapters`).

use std::{collections::BTreeMap, fs, path::Path};

use mlx_rs::Array;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    adapter::{Adapter, AdapterKind},
    targets::{key_of, layer_of},
};
use crate::{
    config::{Config, tensor_names::EMBEDDING},
    error::{Error, Result},
    files::write_beside,
    json,
    model::Module,
    text_file::{self, MAX_SETTINGS},
    weights::{Tensors, tensor_file},
};

pub(super) const WEIGHTS: &str = "adapters.safetensors";
pub(super) const CONFIG: &str = "adapter_config.json";

/// The keys of `adapter_config.json` that are read; mlx-lm stores all its training options there.
#[derive(Deserialize)]
struct Settings {
    #[serde(default = "lora")]
    fine_tune_type: String,
    lora_parameters: Option<LoraParameters>,
    /// OpenELM's own key. mlx-lm always adapts a tied head with the embedding.
    tied_head: Option<bool>,
}

#[derive(Deserialize)]
struct LoraParameters {
    scale: f32,
    #[serde(default)]
    dropout: f32,
}

fn lora() -> String {
    "lora".into()
}

pub(super) fn load(folder: &Path) -> Result<Adapter> {
    let settings = read_settings(&folder.join(CONFIG))?;
    let path = folder.join(WEIGHTS);
    let tensors = tensor_file::load(&path)?;
    tensor_file::require_float(&path, &tensors)?;
    let wrong = |problem: String| Error::adapter(folder.join(CONFIG), problem);
    let kind = match settings.fine_tune_type.as_str() {
        "lora" => AdapterKind::Lora,
        "dora" => AdapterKind::Dora,
        "full" => {
            return Ok(Adapter {
                kind: AdapterKind::Full,
                modules: BTreeMap::new(),
                weights: tensors,
                dropout: 0.0,
                tied_head: false,
            });
        }
        other => {
            return Err(wrong(format!(
                "`fine_tune_type`: expected lora, dora or full, found `{other}`"
            )));
        }
    };
    let Some(parameters) = settings.lora_parameters else {
        return Err(wrong(
            "`lora_parameters` with their `scale` are missing".into(),
        ));
    };
    Ok(Adapter {
        kind,
        modules: modules(tensors, parameters.scale, kind, &path)?,
        weights: Tensors::new(),
        dropout: parameters.dropout,
        tied_head: settings.tied_head.unwrap_or(true),
    })
}

fn read_settings(path: &Path) -> Result<Settings> {
    let wrong = |problem: String| Error::adapter(path, problem);
    let text = text_file::read(path, MAX_SETTINGS, wrong)?;
    json::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// Groups `lora_a`, `lora_b` and `m` by matrix.
fn modules(
    tensors: Tensors,
    scale: f32,
    kind: AdapterKind,
    path: &Path,
) -> Result<BTreeMap<String, Module>> {
    let wrong = |problem: String| Error::adapter(path, problem);
    let mut parts: BTreeMap<String, [Option<Array>; 3]> = BTreeMap::new();
    for (name, array) in tensors {
        let known = name.rsplit_once('.').and_then(|(stem, part)| {
            let slot = ["lora_a", "lora_b", "m"].iter().position(|p| *p == part)?;
            Some((stem.to_owned(), slot))
        });
        let Some((stem, slot)) = known else {
            return Err(wrong(format!("tensor `{name}` is not an adapter tensor")));
        };
        let rank = if slot == 2 { 1 } else { 2 };
        if array.ndim() != rank {
            return Err(wrong(format!(
                "tensor `{name}`: expected {rank} dimensions, found shape {:?}",
                array.shape()
            )));
        }
        parts.entry(stem).or_default()[slot] = Some(array);
    }
    let mut modules = BTreeMap::new();
    for (name, [a, b, m]) in parts {
        let (Some(lora_a), Some(lora_b)) = (a, b) else {
            return Err(wrong(format!("`{name}` lacks `lora_a` or `lora_b`")));
        };
        if m.is_some() != (kind == AdapterKind::Dora) {
            return Err(wrong(format!(
                "`{name}.m` requires, and is required by, a DoRA adapter"
            )));
        }
        modules.insert(
            name,
            Module {
                lora_a,
                lora_b,
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

pub(super) fn save(adapter: &Adapter, folder: &Path, config: &Config) -> Result<()> {
    let adapter = one_scale(adapter, folder)?;
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    tensor_file::save(
        &folder.join(WEIGHTS),
        &adapter.tensors(),
        ("format", "mlx".into()),
    )?;
    let path = folder.join(CONFIG);
    let text = format!("{:#}\n", settings_of(&adapter, config));
    write_beside(&path, |partial| {
        fs::write(partial, text).map_err(Error::io(&path))
    })
}

/// The keys of `adapter_config.json` that mlx-lm reads to load an adapter.
fn settings_of(adapter: &Adapter, config: &Config) -> Value {
    let targets = adapter.targets();
    let layers = config.num_transformer_layers();
    let first = targets.iter().filter_map(|name| layer_of(name)).min();
    let fine_tune_type = match adapter.kind {
        AdapterKind::Lora => "lora",
        AdapterKind::Dora => "dora",
        AdapterKind::Full => "full",
    };
    let mut settings = json!({
        "fine_tune_type": fine_tune_type,
        "num_layers": first.map_or(layers, |first| layers - first.min(layers)),
    });
    if let Some(module) = adapter.modules.values().next() {
        let mut keys: Vec<&str> = targets.iter().map(|name| key_of(name)).collect();
        keys.sort_unstable();
        keys.dedup();
        settings["lora_parameters"] = json!({
            "rank": module.lora_b.dim(0),
            "scale": module.scale,
            "dropout": adapter.dropout,
            "keys": keys,
        });
        if adapter.modules.contains_key(EMBEDDING) {
            settings["tied_head"] = json!(adapter.tied_head);
        }
    } else {
        settings["lora_parameters"] = Value::Null;
    }
    settings
}

/// mlx-lm supports one rank and one scale: other scales are multiplied into `lora_b`.
fn one_scale(adapter: &Adapter, folder: &Path) -> Result<Adapter> {
    let mut adapter = adapter.clone();
    let Some(first) = adapter.modules.values().next().cloned() else {
        return Ok(adapter);
    };
    for (name, module) in &mut adapter.modules {
        if module.lora_b.dim(0) != first.lora_b.dim(0) {
            return Err(Error::adapter(
                folder,
                format!(
                    "mlx-lm's format has one rank for all matrices; `{name}` has {}, the first {}",
                    module.lora_b.dim(0),
                    first.lora_b.dim(0)
                ),
            ));
        }
        if module.scale != first.scale {
            let ratio = Array::from_f32(module.scale / first.scale);
            module.lora_b = module.lora_b.multiply(ratio)?;
            module.scale = first.scale;
        }
    }
    Ok(adapter)
}
