//! Fine-tuning options on the command line and in TOML files.

use std::fs;

use openelm_core::{adapter::AdapterKind, train::PreferenceLoss};
use openelm_testing::repository;

use super::*;
use crate::{
    corenet_yaml,
    finetune::unused,
    settings::testing::{every_option_changes, given, settings, settings_of},
};

/// All inputs of a run.
fn record(settings: Settings) -> String {
    let core = (
        settings.options(1),
        settings.adapter_options(),
        settings.data_options(),
    );
    let own = (
        settings.data,
        settings.adapter_path,
        settings.start_from,
        settings.steps_per_report,
    );
    format!("{core:?} {own:?}")
}

#[test]
fn defaults_match_the_core() {
    let settings = Settings::default();
    assert_eq!(settings.options(1), FinetuneOptions::default());
    assert_eq!(settings.adapter_options(), AdapterOptions::default());
    assert_eq!(settings.data_options(), DataOptions::default());
}

/// A configuration with the keys and values of CoreNet's files.
fn corenet_yaml(name: &str, dora: bool, checkpointing: bool) -> String {
    let modules = [
        ("'.*token_embedding.*'", "embedding"),
        ("'.*out_proj.*'", "linear"),
        ("'.*qkv_proj.*'", "linear"),
        (r"'.*proj_\d.*'", "linear"),
    ];
    let module = |(regex, kind): (&str, &str)| {
        format!(
            "
      - regex: {regex}
        module_type: '{kind}'
        params: {{adapter_name: lora, r: 32, lora_alpha: 32, lora_dropout: 0.1,
          init_lora_weights: true, use_rslora: false, use_dora: {dora}}}"
        )
    };
    let modules: String = modules.into_iter().map(module).collect();
    format!(
        "\
taskname: '+ [OpenELM-LoRA]'
common: {{run_label: train, log_freq: 500, auto_resume: true, grad_clip: 1.0,
  save_all_checkpoints: true, save_interval_freq: 5000, eval_every_k_iterations: 10000,
  mixed_precision: true, mixed_precision_dtype: bfloat16, accum_freq: 2}}
dataset:
  root_train: ''
  disable_val: true
  train_batch_size0: 8
  workers: 4
  persistent_workers: true
  pin_memory: true
  category: language_modeling
  name: commonsense_170k
  language_modeling:
    commonsense_170k:
    sequence_length: 2048
    min_tokens_per_text: 0
    min_characters_per_text: 0
    shuffle_data: true
text_tokenizer:
  name: sentence_piece
  sentence_piece: {{enable_nfc_normalization: true, append_sot_token: true, append_eot_token: true}}
loss:
  category: language_modeling
  language_modeling:
    name: cross_entropy
    cross_entropy: {{ignore_index: 32000, use_z_loss: true}}
optim:
  name: adamw
  weight_decay: 0
  no_decay_bn_filter_bias: true
  adamw: {{beta1: 0.9, beta2: 0.95, eps: 1.e-8}}
scheduler:
  is_iteration_based: true
  max_iterations: 4375
  name: cosine
  warmup_init_lr: 1.e-06
  warmup_iterations: 1000
  cosine: {{max_lr: 0.0003, min_lr: 0.00003}}
model:
  rename_scopes_map: [['token_embeddings.weight', 'token_embeddings.base_layer.weight']]
  ignore_missing_scopes: ['.*lora.*']
  freeze_modules: ['.*base_layer.*', '.*norm.*']
  activation_checkpointing: {checkpointing}
  language_modeling:
    name: general_gpt
    general_gpt: {{model_name: {name}, vocab_size: 32128, max_context_length: 2048,
      padding_index: 32000}}
  lora:
    use_lora: true
    config:{modules}
stats: {{val: [loss], train: [loss]}}
lm_eval_wrapper: {{add_sot_token: true}}
"
    )
}

/// The recipe of the Alignment Handbook with the values of a size.
fn handbook_yaml(epochs: u64, learning_rate: &str, loss: &str) -> String {
    format!(
        "\
model_name_or_path: OpenELM-500M
torch_dtype: null
use_flash_attention_2: false
chat_template: \"{{% if message['role'] == 'user' %}}<|user|>\\n{{{{ eos_token }}}}<|system|><|assistant|>\"
dataset_mixer: {{csarron/ultrafeedback: 1.0}}
dataset_splits: [train, test]
preprocessing_num_workers: 16
bf16: true
beta: 0.01
do_eval: true
evaluation_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {{use_reentrant: False}}
hub_model_id: OpenELM-500M-dpo
learning_rate: {learning_rate}
log_level: info
logging_steps: 10
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: {epochs}
optim: adamw_torch
output_dir: data/OpenELM-500M-dpo
per_device_train_batch_size: 8
per_device_eval_batch_size: 8
push_to_hub: false
save_strategy: steps
save_steps: 100
save_total_limit: 1
seed: 42
warmup_ratio: 0.1
loss_type: {loss}
"
    )
}

/// The settings of a YAML text, or its error without the file's name.
fn of_corenet(yaml: &str) -> Result<Settings, String> {
    let file = openelm_testing::TempFile::new("lora.yaml", yaml);
    let read = corenet_yaml::of_finetuning(Some(&file));
    let read = read.map_err(|error| {
        let message = error.to_string();
        let (_, problem) = message.split_once(".yaml: ").unwrap();
        problem.to_owned()
    })?;
    Ok(settings_of(read.unwrap().table))
}

#[test]
fn yaml_of_corenet_has_the_settings_of_the_recipes() {
    let recipe = |name: String| {
        let file = repository(&format!("recipes/{name}.toml"));
        record(settings(&[], &fs::read_to_string(file).unwrap()))
    };
    for (size, name) in [
        ("270M", "OpenELM-270M"),
        ("450M", "OpenELM-450M"),
        ("1.1B", "OpenELM-1_1B"),
        ("3B", "OpenELM-3B"),
    ] {
        for (kind, dora) in [("lora", false), ("dora", true)] {
            let own = of_corenet(&corenet_yaml(name, dora, size != "270M")).unwrap();
            assert_eq!(
                record(own),
                recipe(format!("{kind}-{size}")),
                "{kind} {size}"
            );
        }
    }
    for (size, epochs, learning_rate, loss) in [
        ("270M", 5, "2e-5", "hinge"),
        ("450M", 8, "3.0e-5", "hinge"),
        ("1.1B", 5, "5.0e-5", "sigmoid"),
        ("3B", 10, "1e-4", "hinge"),
    ] {
        let own = of_corenet(&handbook_yaml(epochs, learning_rate, loss)).unwrap();
        assert_eq!(record(own), recipe(format!("instruct-{size}")), "{size}");
    }
}

#[test]
fn other_yaml_is_refused() {
    let corenet = corenet_yaml("OpenELM-270M", false, false);
    let handbook = handbook_yaml(3, "5e-5", "sigmoid");
    for (yaml, from, to, expected) in [
        (
            &corenet,
            "accum_freq:",
            "accumulate:",
            "common.accumulate: unknown key",
        ),
        (
            &corenet,
            "name: commonsense_170k",
            "name: general_lm",
            "dataset.name: expected commonsense_170k for `openelm finetune`, found general_lm",
        ),
        (
            &corenet,
            "'.*out_proj.*'",
            "'.*norm.*'",
            "model.lora.config[1].regex: expected one of ",
        ),
        (
            &corenet,
            "r: 32",
            "r: 16",
            "model.lora.config[1].params: expected those of ",
        ),
        (
            &corenet,
            "use_lora: true",
            "use_lora: false",
            "model.lora.use_lora: expected true, found false",
        ),
        (&handbook, "beta:", "betas:", "betas: unknown key"),
        (
            &handbook,
            "adamw_torch",
            "rmsprop",
            "optim: expected \"adamw_torch\", found \"rmsprop\"",
        ),
        (
            &handbook,
            "<|user|>",
            "[INST]",
            "chat_template: expected OpenELM-Instruct's, found one without <|user|>",
        ),
    ] {
        assert!(yaml.contains(from), "{from}");
        let problem = of_corenet(&yaml.replacen(from, to, 1)).unwrap_err();
        assert!(problem.starts_with(expected), "{problem}");
    }
}

/// The options of CoreNet's YAML files and of its table of instruction tuning.
#[test]
fn recipes_are_corenets() {
    let read = |name: String| {
        let file = repository(&format!("recipes/{name}.toml"));
        let toml = fs::read_to_string(file).unwrap();
        let own: Settings = settings(&[], &toml);
        own.check().unwrap();
        unused::check(&own, &given::<Settings>(&[], &toml)).unwrap();
        own
    };
    for (size, epochs, learning_rate, loss) in [
        ("270M", 5, 2e-5, PreferenceLoss::Hinge),
        ("450M", 8, 3e-5, PreferenceLoss::Hinge),
        ("1.1B", 5, 5e-5, PreferenceLoss::Sigmoid),
        ("3B", 10, 1e-4, PreferenceLoss::Hinge),
    ] {
        for (name, kind) in [("lora", AdapterKind::Lora), ("dora", AdapterKind::Dora)] {
            let own = read(format!("{name}-{size}"));
            let options = own.options(1);
            let trainer = &options.trainer;
            assert_eq!(trainer.optimizer.betas, [0.9, 0.95]);
            assert_eq!(trainer.z_loss, 1e-4);
            // The first rates of the warm-up, the full rate, and the last one.
            let rates = [0, 500, 1000, 4375].map(|update| trainer.schedule.at(update));
            assert_eq!(rates, [1e-6, 1.505e-4, 3e-4, 3e-5]);
            let adapter = own.adapter_options();
            assert_eq!((adapter.kind, adapter.lora.rank), (kind, 32));
            assert_eq!((adapter.lora.scale, adapter.lora.dropout), (1.0, 0.1));
            assert_eq!(adapter.targets.num_layers, None);
            assert!(own.data_options().clean_text);
        }
        let own = read(format!("instruct-{size}"));
        assert_eq!(own.data_options().max_prompt_length, Some(512));
        assert_eq!(own.max_seq_length, 1024);
        // 60,000 rows.
        let options = own.options(7500);
        assert_eq!(options.iters, epochs * 7500);
        assert_eq!(options.preference.loss, loss);
        assert_eq!(options.preference.beta, 0.01);
        let schedule = &options.trainer.schedule;
        assert_eq!(schedule.learning_rate, learning_rate);
        assert_eq!(schedule.warmup, epochs * 375);
    }
}

#[test]
fn every_option_reaches_the_core() {
    let cases: [(&str, &str, &[&str]); 47] = [
        ("data", "rows", &[]),
        ("adapter-path", "folder", &[]),
        ("start-from", "folder", &[]),
        ("fine-tune-type", "dora", &[]),
        ("rank", "4", &[]),
        ("scale", "2.5", &[]),
        ("alpha", "16", &[]),
        ("rslora", "", &["--alpha=4"]),
        ("dropout", "0.5", &[]),
        ("num-layers", "-1", &[]),
        ("keys", "proj_2", &[]),
        ("keys-regex", ".*", &[]),
        ("tied-head", "", &[]),
        ("iters", "7", &[]),
        ("batch-size", "7", &[]),
        ("max-seq-length", "7", &[]),
        ("chat-template", "plain", &[]),
        ("warmup-init", "0.5", &[]),
        ("warmup-ratio", "0.5", &[]),
        ("epochs", "7", &[]),
        ("betas", "0.5,0.75", &[]),
        ("eps", "0.5", &[]),
        ("z-loss", "0.5", &[]),
        ("long-rows", "drop", &[]),
        ("max-prompt-length", "7", &[]),
        ("clean-text", "", &[]),
        ("mask-prompt", "", &[]),
        ("optimizer", "adamw", &[]),
        ("learning-rate", "0.5", &[]),
        ("lr-schedule", "cosine", &[]),
        ("lr-end", "0.5", &["--lr-schedule=linear"]),
        ("warmup", "7", &[]),
        ("weight-decay", "0.5", &[]),
        ("bias-correction", "", &[]),
        ("grad-accumulation-steps", "7", &[]),
        ("clip-norm", "0.5", &[]),
        ("grad-checkpoint", "", &[]),
        ("steps-per-eval", "7", &[]),
        ("val-batches", "-1", &[]),
        ("steps-per-report", "7", &[]),
        ("save-every", "7", &[]),
        ("patience", "7", &[]),
        ("dpo", "hinge", &[]),
        ("beta", "0.5", &[]),
        ("seed", "7", &[]),
        ("mlx-lm-compat", "", &[]),
        ("test", "", &[]),
    ];
    every_option_changes(&cases, record);
}

#[test]
fn options_override_the_file() {
    let file = "rank = 4\niters = 5\nmask-prompt = true\nnum-layers = -1\n";
    let both: Settings = settings(&["--rank", "16", "--tied-head"], file);
    assert_eq!((both.rank, both.iters), (16, 5));
    assert!(both.mask_prompt && both.tied_head && !both.test);
    assert_eq!(both.adapter_options().targets.num_layers, None);
    // An option given with its default value still overrides the file.
    let both: Settings = settings(&["--rank", "8"], file);
    assert_eq!(both.rank, 8);
}

#[test]
fn options_override_switches_and_alternatives_of_the_file() {
    let file = "mask-prompt = true\nalpha = 16\nrslora = true\nkeys = [\"proj_1\"]\n";
    let both: Settings = settings(&["--mask-prompt=false", "--scale=2"], file);
    assert!(!both.mask_prompt && !both.rslora);
    assert_eq!(both.adapter_options().lora.scale, 2.0);
    let both: Settings = settings(&["--keys-regex=.*", "--mask-prompt"], file);
    assert!(both.mask_prompt && both.rslora);
    assert_eq!(
        both.adapter_options().targets.keys,
        Keys::Regex(".*".into())
    );
    let both: Settings = settings(&["--rslora=false"], "alpha = 16\nrslora = true\n");
    assert_eq!(both.adapter_options().lora.scale, 2.0);
}
