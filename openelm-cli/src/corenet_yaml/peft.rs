//! Configurations of LoRA and DoRA: `projects/openelm/peft_configs` of CoreNet.

use serde_json::Value;
use toml::Table;

use super::{
    CoreNetSettings,
    keys::Keys,
    sections::{
        NO_EFFECT, check_kind, integer, mixed_precision, model, set, tokenizer, training,
        without_effect,
    },
};

/// GPUs of one machine: the number behind the files' three epochs.
const GPUS: u64 = 8;

/// The modules of CoreNet's regular expressions.
const MODULES: [(&str, &[&str]); 4] = [
    (".*qkv_proj.*", &["qkv_proj"]),
    (".*out_proj.*", &["out_proj"]),
    (r".*proj_\d.*", &["proj_1", "proj_2"]),
    (".*token_embedding.*", &["token_embeddings"]),
];

/// Keys without effect: the base model is `--model`, and only the adapter is trained.
const OF_MODEL: [&str; 4] = [
    "dataset.workers",
    "model.rename_scopes_map",
    "model.ignore_missing_scopes",
    "model.freeze_modules",
];

/// The settings of `openelm finetune`.
pub(super) fn settings(mut keys: Keys) -> Result<CoreNetSettings, String> {
    let (mut table, mut notes) = (Table::new(), Vec::new());
    check_kind(&mut keys, "commonsense_170k", "finetune")?;
    set(&mut table, "num-layers", -1);
    set(&mut table, "optimizer", "adamw");
    set(&mut table, "bias-correction", true);
    set(&mut table, "lr-schedule", "corenet");
    training(&mut keys, &mut table)?;
    let rows = keys.required_count("dataset.train_batch_size0")?;
    let accumulated = keys.count("common.accum_freq")?.unwrap_or(1).max(1);
    let batches = accumulated.saturating_mul(GPUS);
    let updates = keys.required_count("scheduler.max_iterations")?;
    set(&mut table, "batch-size", integer(rows));
    set(&mut table, "grad-accumulation-steps", integer(batches));
    set(
        &mut table,
        "iters",
        integer(updates.saturating_mul(batches)),
    );
    notes.push(format!(
        "grad-accumulation-steps {batches}: {accumulated} batches on each of {GPUS} GPUs, for \
         {updates} updates"
    ));
    if let Some(every) = keys.count("common.save_interval_freq")? {
        set(&mut table, "save-every", integer(every));
    }
    data(&mut keys, &mut table)?;
    set(&mut table, "clean-text", true);
    tokenizer(&mut keys)?;
    let (preset, ..) = model(&mut keys)?;
    adapter(&mut keys, &mut table, &mut notes)?;
    let no_effect = [&NO_EFFECT[..], &OF_MODEL].concat();
    let precision = mixed_precision(&mut keys)?;
    let precision = precision.map(|dtype| format!("mixed precision in {dtype}: see --dtype"));
    let left = keys.finish(&no_effect)?;
    notes.extend(precision);
    notes.extend(without_effect(&left));
    Ok(CoreNetSettings {
        table,
        notes,
        preset: Some(preset),
    })
}

/// The data set, and the length of its rows: CoreNet's inputs have `sequence_length` tokens, rows one
/// more.
fn data(keys: &mut Keys, table: &mut Table) -> Result<(), String> {
    const DATA: &str = "dataset.language_modeling";
    if let Some(path) = keys.text(&format!("{DATA}.commonsense_170k.path"))? {
        set(table, "data", path);
    }
    let length = keys.required_count(&format!("{DATA}.sequence_length"))?;
    set(table, "max-seq-length", integer(length.saturating_add(1)));
    keys.only(&format!("{DATA}.min_tokens_per_text"), 0)?;
    keys.only(&format!("{DATA}.min_characters_per_text"), 0)?;
    keys.only(&format!("{DATA}.shuffle_data"), true)
}

/// `model.lora`: one adapter with the same options in all modules.
fn adapter(keys: &mut Keys, table: &mut Table, notes: &mut Vec<String>) -> Result<(), String> {
    const CONFIG: &str = "model.lora.config";
    keys.only("model.lora.use_lora", true)?;
    let Some(Value::Array(entries)) = keys.take(CONFIG) else {
        return Err(format!("{CONFIG}: expected a list of modules, found none"));
    };
    let is_dora = |entry: &Value| entry["params"]["use_dora"] == Value::Bool(true);
    let is_embedding = |entry: &Value| entry["module_type"] == "embedding";
    let has_dora = entries.iter().any(is_dora);
    let mut common: Option<(usize, Value)> = None;
    let mut modules = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let place = format!("{CONFIG}[{number}]");
        let known = ["regex", "module_type", "params"];
        let members = entry.as_object();
        let other = members.and_then(|all| all.keys().find(|key| !known.contains(&key.as_str())));
        if let Some(other) = other {
            return Err(format!("{place}.{other}: unknown key"));
        }
        let regex = entry["regex"].as_str().unwrap_or_default();
        let Some((_, names)) = MODULES.iter().find(|(known, _)| *known == regex) else {
            let known: Vec<&str> = MODULES.iter().map(|(regex, _)| *regex).collect();
            let expected = known.join(", ");
            return Err(format!(
                "{place}.regex: expected one of {expected}, found {regex:?}"
            ));
        };
        if has_dora && is_embedding(entry) {
            notes.push("no adapter of the embedding: DoRA trains the projections alone".into());
            continue;
        }
        modules.extend(names.iter().map(|name| (*name).to_owned()));
        let params = entry["params"].clone();
        match &common {
            Some((first, expected)) if *expected != params => {
                return Err(format!(
                    "{place}.params: expected those of {CONFIG}[{first}], {expected}, found {params}"
                ));
            }
            Some(_) => {}
            None => common = Some((number, params)),
        }
    }
    let order = [
        "qkv_proj",
        "out_proj",
        "proj_1",
        "proj_2",
        "token_embeddings",
    ];
    modules.sort_by_key(|name| order.iter().position(|known| known == name));
    let Some((number, Value::Object(params))) = common else {
        return Err(format!(
            "{CONFIG}: expected `params` of a module, found none"
        ));
    };
    set(
        table,
        "fine-tune-type",
        if has_dora { "dora" } else { "lora" },
    );
    set(table, "keys", modules);
    let mut params = Keys::of(params);
    let place = |problem| format!("{CONFIG}[{number}].params.{problem}");
    options(&mut params, table).map_err(place)?;
    params
        .finish(&["adapter_name", "use_dora"])
        .map_err(place)?;
    Ok(())
}

/// The options of an adapter.
fn options(params: &mut Keys, table: &mut Table) -> Result<(), String> {
    params.only("init_lora_weights", true)?;
    set(table, "rank", integer(params.required_count("r")?));
    set(table, "alpha", params.required_number("lora_alpha")?);
    let dropout = params.number("lora_dropout")?.unwrap_or(0.0);
    set(table, "dropout", dropout);
    if params.flag("use_rslora")? == Some(true) {
        set(table, "rslora", true);
    }
    Ok(())
}
