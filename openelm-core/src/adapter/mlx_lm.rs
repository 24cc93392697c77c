//! mlx-lm's adapter folder: `adapters.safetensors` and `adapter_config.json`
//! (`mlx_lm/tuner/utils.py`, `load_adapters`).

use std::{collections::BTreeMap, fs, path::Path};

use mlx_rs::Array;
use serde_json::{Value, json};

use super::{
    adapter::{Adapter, AdapterKind},
    mlx_lm_settings::Settings,
    targets::{key_of, layer_of},
};
use crate::{
    config::{Config, tensor_names::EMBEDDING},
    error::{Error, Result},
    files::write_file,
    model::Module,
    weights::{Tensors, tensor_file},
};

pub(super) const WEIGHTS: &str = "adapters.safetensors";
pub(super) const CONFIG: &str = "adapter_config.json";
/// The keys that this crate writes. mlx-lm writes more.
pub(super) const KEYS: [&str; 4] = [
    "fine_tune_type",
    "num_layers",
    "lora_parameters",
    "tied_head",
];

pub(super) fn load(folder: &Path) -> Result<Adapter> {
    let settings = Settings::read(&folder.join(CONFIG))?;
    let path = folder.join(WEIGHTS);
    let tensors = tensor_file::load(&path)?;
    tensor_file::require_float(&path, &tensors)?;
    if settings.kind == AdapterKind::Full {
        return Ok(Adapter {
            kind: AdapterKind::Full,
            modules: BTreeMap::new(),
            weights: tensors,
            dropout: 0.0,
            tied_head: false,
            origin: None,
        });
    }
    Ok(Adapter {
        kind: settings.kind,
        modules: modules(tensors, &settings, folder)?,
        weights: Tensors::new(),
        dropout: settings.dropout,
        tied_head: settings.tied_head,
        origin: None,
    })
}

/// Groups `lora_a`, `lora_b` and `m` by matrix.
fn modules(
    tensors: Tensors,
    settings: &Settings,
    folder: &Path,
) -> Result<BTreeMap<String, Module>> {
    let wrong = |problem: String| Error::adapter(folder.join(WEIGHTS), problem);
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
        if m.is_some() != (settings.kind == AdapterKind::Dora) {
            return Err(wrong(format!(
                "`{name}.m` requires, and is required by, a DoRA adapter"
            )));
        }
        let scale = settings.scale(&name, lora_a.dim(1) as usize);
        let scale = scale.map_err(|problem| Error::adapter(folder.join(CONFIG), problem))?;
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
    let text = format!("{:#}\n", settings_of(&adapter, config));
    write_file(folder.join(CONFIG), text)?;
    tensor_file::save(&folder.join(WEIGHTS), &adapter.tensors(), ("format", "mlx"))
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

/// Checks that mlx-lm's format can hold `adapter`: it is LoRA or DoRA in all matrices, it has one
/// rank, and other scales are multiplied
/// into `lora_b`. Errors begin with the adapter's matrices.
pub(super) fn check_savable(adapter: &Adapter) -> std::result::Result<(), String> {
    let Some(first) = adapter.modules.values().next() else {
        return Ok(());
    };
    if let Some(name) = adapter.without_magnitudes() {
        return Err(format!(
            "mlx-lm's format has magnitudes of all matrices or of none; `{name}` of this DoRA \
             adapter has none, and its file no `base_layer` to compute them from"
        ));
    }
    for (name, module) in &adapter.modules {
        let (expected, found) = (first.lora_b.dim(0), module.lora_b.dim(0));
        if found != expected {
            return Err(format!(
                "mlx-lm's format has one rank for all matrices; `{name}` has {found}, the first \
                 {expected}"
            ));
        }
        if module.scale != first.scale && !(module.scale / first.scale).is_finite() {
            return Err(format!(
                "mlx-lm's format has one scale for all matrices; `{name}` has {}, the first {}",
                module.scale, first.scale
            ));
        }
    }
    Ok(())
}

/// mlx-lm supports one rank and one scale: other scales are multiplied into `lora_b`.
fn one_scale(adapter: &Adapter, folder: &Path) -> Result<Adapter> {
    check_savable(adapter).map_err(|problem| Error::adapter(folder, problem))?;
    let mut adapter = adapter.clone();
    let scale = adapter.modules.values().next().map(|module| module.scale);
    for module in adapter.modules.values_mut() {
        if let Some(scale) = scale.filter(|scale| module.scale != *scale) {
            let ratio = Array::from_f32(module.scale / scale);
            module.lora_b = module.lora_b.multiply(ratio)?;
            module.scale = scale;
        }
    }
    Ok(adapter)
}
