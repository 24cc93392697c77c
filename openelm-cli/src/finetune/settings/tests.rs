//! Fine-tuning options on the command line and in TOML files.

use std::fs;

use openelm_core::{adapter::AdapterKind, train::PreferenceLoss};
use openelm_testing::repository;

use super::*;
use crate::{
    finetune::unused,
    settings::testing::{every_option_changes, given, settings},
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
