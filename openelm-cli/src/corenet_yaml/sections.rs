//! The sections that CoreNet's configurations of pre-training and PEFT have in common: texts, loss,
//! optimizer, schedule and model.

use openelm_core::config::Preset;
use toml::{Table, Value};

use super::keys::Keys;

/// CoreNet's z-loss weight, which its files do not state (`--loss.…cross-entropy.z-loss-eps`).
const Z_LOSS: f64 = 1e-4;

/// Keys of both kinds without effect: names, logs and the PyTorch process.
pub(super) const NO_EFFECT: [&str; 14] = [
    "taskname",
    "common.auto_resume",
    "common.eval_every_k_iterations",
    "common.save_all_checkpoints",
    "train_eval_pipeline.name",
    "fsdp.",
    "dataset.root_train",
    "dataset.disable_val",
    "dataset.persistent_workers",
    "dataset.pin_memory",
    "loss.language_modeling.cross_entropy.ignore_index",
    "model.language_modeling.general_gpt.padding_index",
    "stats.",
    "lm_eval_wrapper.",
];

/// Sets `key`.
pub(super) fn set(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

/// A count for a TOML file.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Refuses a file that is none of CoreNet's language models, or of the other command.
pub(super) fn check_kind(keys: &mut Keys, dataset: &str, command: &str) -> Result<(), String> {
    if !keys.has("model.language_modeling.name") {
        return Err(
            "a YAML file, expected a configuration of CoreNet's language models, or TOML \
             (`batch-size = 4`)"
                .into(),
        );
    }
    keys.only("common.run_label", "train")?;
    keys.only("dataset.category", "language_modeling")?;
    keys.only("model.language_modeling.name", "general_gpt")?;
    match keys.text("dataset.name")? {
        Some(found) if found != dataset => Err(format!(
            "dataset.name: expected {dataset} for `openelm {command}`, found {found}"
        )),
        _ => Ok(()),
    }
}

/// The tokenizer's settings: BOS and EOS are added, and the text is normalised.
pub(super) fn tokenizer(keys: &mut Keys) -> Result<Option<String>, String> {
    keys.only("text_tokenizer.name", "sentence_piece")?;
    for key in [
        "enable_nfc_normalization",
        "append_sot_token",
        "append_eot_token",
    ] {
        keys.only(&format!("text_tokenizer.sentence_piece.{key}"), true)?;
    }
    keys.text("text_tokenizer.sentence_piece.model_path")
}

/// Loss, optimizer, and schedule without the number of iterations.
pub(super) fn training(keys: &mut Keys, table: &mut Table) -> Result<(), String> {
    const CROSS_ENTROPY: &str = "loss.language_modeling.cross_entropy";
    keys.only("loss.category", "language_modeling")?;
    keys.only("loss.language_modeling.name", "cross_entropy")?;
    let weight = keys.number(&format!("{CROSS_ENTROPY}.z_loss_eps"))?;
    let has_z_loss = keys.flag(&format!("{CROSS_ENTROPY}.use_z_loss"))?;
    let z_loss = match has_z_loss {
        Some(true) => weight.unwrap_or(Z_LOSS),
        _ => 0.0,
    };
    set(table, "z-loss", z_loss);
    if let Some(norm) = keys.number("common.grad_clip")? {
        set(table, "clip-norm", norm);
    }
    if let Some(every) = keys.count("common.log_freq")? {
        set(table, "steps-per-report", integer(every));
    }

    keys.only("optim.name", "adamw")?;
    keys.only("optim.adamw.amsgrad", false)?;
    // Norms do not decay here.
    let decay = keys.number("optim.weight_decay")?.unwrap_or(0.0);
    if decay > 0.0 {
        keys.only("optim.no_decay_bn_filter_bias", true)?;
    } else {
        keys.flag("optim.no_decay_bn_filter_bias")?;
    }
    set(table, "weight-decay", decay);
    let betas = [
        keys.number("optim.adamw.beta1")?.unwrap_or(0.9),
        keys.number("optim.adamw.beta2")?.unwrap_or(0.98),
    ];
    set(table, "betas", betas.to_vec());
    set(
        table,
        "eps",
        keys.number("optim.adamw.eps")?.unwrap_or(1e-8),
    );

    keys.only("scheduler.name", "cosine")?;
    keys.only("scheduler.is_iteration_based", true)?;
    set(
        table,
        "learning-rate",
        keys.required_number("scheduler.cosine.max_lr")?,
    );
    set(
        table,
        "lr-end",
        keys.required_number("scheduler.cosine.min_lr")?,
    );
    let warmup = keys.count("scheduler.warmup_iterations")?.unwrap_or(0);
    set(table, "warmup", integer(warmup));
    if let Some(rate) = keys.number("scheduler.warmup_init_lr")? {
        set(table, "warmup-init", rate);
    }
    let checkpointing = keys.flag("model.activation_checkpointing")?;
    set(table, "grad-checkpoint", checkpointing.unwrap_or(false));
    Ok(())
}

/// The dtype of mixed precision, if it is on.
pub(super) fn mixed_precision(keys: &mut Keys) -> Result<Option<String>, String> {
    let dtype = keys.text("common.mixed_precision_dtype")?;
    let is_mixed = keys.flag("common.mixed_precision")? == Some(true);
    Ok(is_mixed.then(|| dtype.unwrap_or_else(|| "float16".into())))
}

/// The size, and the rows of the embedding.
pub(super) fn model(keys: &mut Keys) -> Result<(Preset, u64, u64), String> {
    const MODEL: &str = "model.language_modeling.general_gpt";
    let name = format!("{MODEL}.model_name");
    let preset = keys.text(&name)?.unwrap_or_default();
    let preset = preset
        .parse()
        .map_err(|error: openelm_core::Error| format!("{name}: {error}"))?;
    Ok((
        preset,
        keys.required_count(&format!("{MODEL}.vocab_size"))?,
        keys.required_count(&format!("{MODEL}.max_context_length"))?,
    ))
}

/// The note about the keys without effect.
pub(super) fn without_effect(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| format!("keys without effect here: {}", keys.join(", ")))
}
