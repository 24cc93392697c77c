//! Configurations of pre-training: `projects/openelm/pretraining_configs` of CoreNet.

use openelm_core::pretrain::Recipe;
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

/// Apple's GPUs: 16 machines with 8 each. The files state them in a comment.
const GPUS: u64 = 128;
/// Largest number of files.
const MAX_FILES: u64 = 100_000;

/// The settings of `openelm pretrain`.
pub(super) fn settings(mut keys: Keys) -> Result<CoreNetSettings, String> {
    let mut table = Table::new();
    check_kind(&mut keys, "general_lm", "pretrain")?;
    training(&mut keys, &mut table)?;
    let iters = keys.required_count("scheduler.max_iterations")?;
    set(&mut table, "iters", integer(iters));
    if let Some(every) = keys.count("common.save_interval_freq")? {
        set(&mut table, "save-every", integer(every));
        let saves_all = keys.flag("common.save_all_checkpoints")? == Some(true);
        if saves_all && every > 0 {
            set(
                &mut table,
                "keep-checkpoints",
                integer((iters / every).max(1)),
            );
        }
    }
    let mut notes = Vec::new();
    let rows = keys.required_count("dataset.train_batch_size0")?;
    set(&mut table, "micro-batch-size", integer(rows));
    set(&mut table, "batch-size", integer(rows.saturating_mul(GPUS)));
    notes.push(format!(
        "batch-size {}: {rows} sequences on each of Apple's {GPUS} GPUs",
        rows.saturating_mul(GPUS)
    ));
    if let Some(workers) = keys.count("dataset.workers")? {
        let readers = workers.max(1).saturating_mul(GPUS);
        set(&mut table, "interleave", integer(readers));
        set(&mut table, "shard-files", true);
    }
    if keys.flag("ema.enable")? == Some(true) {
        let momentum = keys.number("ema.momentum")?.unwrap_or(1e-4);
        set(&mut table, "ema-decay", 1.0 - momentum);
    }
    data(&mut keys, &mut table)?;
    // CoreNet's tokenizer repairs the text, and its loss counts pads in the z-loss.
    set(&mut table, "clean-text", true);
    set(&mut table, "corenet-losses", true);
    if let Some(path) = tokenizer(&mut keys)? {
        set(&mut table, "tokenizer", path);
    }
    let (preset, vocab_size, max_context_length) = model(&mut keys)?;
    let mut architecture = Table::new();
    set(&mut architecture, "preset", preset.name());
    set(&mut architecture, "vocab_size", integer(vocab_size));
    set(
        &mut architecture,
        "max_context_length",
        integer(max_context_length),
    );
    set(&mut table, "model", architecture);
    let length = table
        .get("max-seq-length")
        .and_then(toml::Value::as_integer);
    let tokens = rows
        .saturating_mul(GPUS)
        .saturating_mul(length.unwrap_or(0) as u64);
    if tokens != Recipe::CORENET_TOKENS {
        notes.push(format!(
            "{tokens} tokens per update; Apple's recipes have 4,194,304"
        ));
    }
    let notes_of_precision = precision(&mut keys, &mut table)?;
    let left = keys.finish(&NO_EFFECT)?;
    notes.extend(notes_of_precision);
    notes.extend(without_effect(&left));
    Ok(CoreNetSettings {
        table,
        notes,
        preset: None,
    })
}

/// Autocast, or FSDP with its dtype of the parameters in the computation; a note about another dtype.
fn precision(keys: &mut Keys, table: &mut Table) -> Result<Option<String>, String> {
    let note = match mixed_precision(keys)? {
        Some(dtype) if dtype == "bfloat16" => {
            set(table, "autocast", true);
            None
        }
        Some(dtype) => Some(format!("mixed precision in {dtype}: see --dtype")),
        None => None,
    };
    if keys.text("train_eval_pipeline.name")?.as_deref() == Some("fsdp_train_eval_pipeline") {
        set(table, "fsdp", true);
        if let Some(dtype) = keys.text("fsdp.parameter_datatype")? {
            set(table, "dtype", dtype);
        }
    }
    Ok(note)
}

/// Files and the selection of texts.
fn data(keys: &mut Keys, table: &mut Table) -> Result<(), String> {
    const DATA: &str = "dataset.language_modeling";
    set(table, "packing", "truncate");
    let length = keys.required_count(&format!("{DATA}.sequence_length"))?;
    set(table, "max-seq-length", integer(length));
    for (key, option) in [
        ("min_tokens_per_text", "min-tokens"),
        ("min_characters_per_text", "min-characters"),
    ] {
        let least = keys.count(&format!("{DATA}.{key}"))?.unwrap_or(0);
        set(table, option, integer(least));
    }
    let shuffles = keys.flag(&format!("{DATA}.shuffle_data"))?;
    set(table, "shuffle-files", shuffles.unwrap_or(false));
    let key = format!("{DATA}.general_lm.train_data_info");
    let Some(Value::Array(groups)) = keys.take(&key) else {
        return Err(format!("{key}: expected a list of files, found none"));
    };
    let (mut files, mut text_keys) = (Vec::new(), Vec::<String>::new());
    for group in &groups {
        let fault = |problem: &str| format!("{key}: {problem}, found {group}");
        let Value::Object(members) = group else {
            return Err(fault(
                "expected `file_name`, `text_key` and `file_id_range`",
            ));
        };
        if let Some(other) = members
            .keys()
            .find(|name| !["file_name", "text_key", "file_id_range"].contains(&name.as_str()))
        {
            return Err(format!("{key}: {other}: unknown key"));
        }
        let text_key = members.get("text_key").and_then(Value::as_str);
        let text_key = text_key.ok_or_else(|| fault("expected a `text_key`"))?;
        if !text_keys.iter().any(|known| known == text_key) {
            text_keys.push(text_key.to_owned());
        }
        let bound = |at: usize| members.get("file_id_range")?.get(at)?.as_u64();
        if let Some(name) = members.get("file_name").and_then(Value::as_str) {
            let (Some(first), Some(end)) = (bound(0), bound(1)) else {
                return Err(fault("expected a `file_id_range` of two numbers"));
            };
            if end.saturating_sub(first) > MAX_FILES {
                return Err(fault("expected at most 100,000 files"));
            }
            files.extend((first..end).map(|id| file_name(name, id)));
        }
    }
    set(table, "text-key", text_keys.join(","));
    if !files.is_empty() {
        set(table, "data", files);
    }
    Ok(())
}

/// `name` with `id` for `{file_id}`, padded as in `{file_id:05d}`.
fn file_name(name: &str, id: u64) -> String {
    let Some((before, rest)) = name.split_once("{file_id") else {
        return name.to_owned();
    };
    let Some((format, after)) = rest.split_once('}') else {
        return name.to_owned();
    };
    let width = format.trim_start_matches(':').trim_end_matches('d');
    let width = width.parse::<usize>().unwrap_or(0).min(32);
    format!("{before}{id:0width$}{after}")
}
