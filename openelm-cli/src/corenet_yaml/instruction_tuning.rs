//! Recipes of the Alignment Handbook: `projects/openelm/instruction_tuning` of CoreNet.
//!
//! Loss, epochs and learning rate of a size come from the command line of the handbook's script; here
//! they are options, or the keys `loss_type`, `num_train_epochs` and `learning_rate`.

use toml::Table;

use super::{
    CoreNetSettings,
    keys::Keys,
    sections::{integer, set, without_effect},
};

/// Keys without effect: names, logs, the Hub, and data, which is `--data`.
const NO_EFFECT: [&str; 22] = [
    // Validation needs data: `--steps-per-eval`.
    "eval_steps",
    "model_name_or_path",
    "torch_dtype",
    "use_flash_attention_2",
    "dataset_mixer.",
    "dataset_splits",
    "preprocessing_num_workers",
    "bf16",
    "do_eval",
    "evaluation_strategy",
    "gradient_checkpointing_kwargs.",
    "hub_model_id",
    "log_level",
    "output_dir",
    "per_device_eval_batch_size",
    "push_to_hub",
    "report_to",
    "save_strategy",
    "save_total_limit",
    "tokenizer_name_or_path",
    "trust_remote_code",
    "truncation_mode",
];

/// True for a recipe of the handbook.
pub(super) fn is_recipe(keys: &Keys) -> bool {
    keys.has("model_name_or_path")
}

/// The settings of `openelm finetune`.
pub(super) fn settings(mut keys: Keys) -> Result<CoreNetSettings, String> {
    let mut table = Table::new();
    set(&mut table, "fine-tune-type", "full");
    set(&mut table, "num-layers", -1);
    let loss = keys.text("loss_type")?.unwrap_or_else(|| "sigmoid".into());
    set(&mut table, "dpo", loss);
    if let Some(beta) = keys.number("beta")? {
        set(&mut table, "beta", beta);
    }
    if let Some(template) = keys.text("chat_template")? {
        let turns = ["<|user|>", "<|system|>", "<|assistant|>", "eos_token"];
        if let Some(missing) = turns.iter().find(|turn| !template.contains(**turn)) {
            return Err(format!(
                "chat_template: expected OpenELM-Instruct's, found one without {missing}"
            ));
        }
        set(&mut table, "chat-template", "openelm-instruct");
    }
    let accumulated = keys.count("gradient_accumulation_steps")?.unwrap_or(1);
    set(&mut table, "grad-accumulation-steps", integer(accumulated));
    for (key, option) in [
        ("max_length", "max-seq-length"),
        ("max_prompt_length", "max-prompt-length"),
        ("per_device_train_batch_size", "batch-size"),
        ("num_train_epochs", "epochs"),
        ("save_steps", "save-every"),
        ("logging_steps", "steps-per-report"),
        ("seed", "seed"),
    ] {
        if let Some(count) = keys.count(key)? {
            set(&mut table, option, integer(count));
        }
    }
    keys.only("optim", "adamw_torch")?;
    set(&mut table, "optimizer", "adamw");
    set(&mut table, "bias-correction", true);
    set(
        &mut table,
        "learning-rate",
        keys.required_number("learning_rate")?,
    );
    keys.only("lr_scheduler_type", "cosine")?;
    set(&mut table, "lr-schedule", "cosine");
    if let Some(ratio) = keys.number("warmup_ratio")? {
        set(&mut table, "warmup-ratio", ratio);
    }
    // The default of Hugging Face's trainer.
    let norm = keys.number("max_grad_norm")?.unwrap_or(1.0);
    set(&mut table, "clip-norm", norm);
    let checkpointing = keys.flag("gradient_checkpointing")?.unwrap_or(false);
    set(&mut table, "grad-checkpoint", checkpointing);
    let left = keys.finish(&NO_EFFECT)?;
    Ok(CoreNetSettings {
        table,
        notes: without_effect(&left).into_iter().collect(),
        preset: None,
    })
}
