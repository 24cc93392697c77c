//! Pre-training options on the command line and in TOML files.

use std::{fs, path::Path};

use openelm_core::{
    config::Preset,
    corpus::{CorpusGroup, FileFormat},
    train::TrainerOptions,
};
use openelm_testing::repository;

use super::*;
use crate::{
    corenet_yaml,
    pretrain::unused,
    settings::testing::{every_option_changes, given, settings, settings_of},
};

fn tales() -> Tokenizer {
    let tales = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../openelm-core/tests/fixtures/tales"
    );
    Tokenizer::find(Path::new(tales), None).unwrap()
}

/// All inputs of a run.
fn record(settings: Settings) -> String {
    let architecture = settings.model.layer_wise(&tales());
    let length = settings.max_seq_length.unwrap_or(64);
    let core = (
        settings.options(length).unwrap(),
        settings.corpus(length, 0, 1).unwrap(),
        architecture,
    );
    let own = (
        settings.valid,
        settings.output,
        settings.shuffle,
        settings.steps_per_report,
        settings.processes,
        settings.process_timeout,
    );
    format!("{core:?} {own:?}")
}

#[test]
fn defaults_match_the_core() {
    let settings: Settings = settings(&["--iters=50", "--data=books.jsonl"], "");
    let recipe = Recipe::new(50, 32 * 64, None);
    let options = settings.options(64).unwrap();
    assert_eq!(options, PretrainOptions::new(recipe));
    let corpus = CorpusOptions {
        files: vec!["books.jsonl".into()],
        ..CorpusOptions::default()
    };
    let length = corpus.sequence_length;
    assert_eq!(settings.corpus(length, 0, 1).unwrap(), corpus);
}

#[test]
fn the_rate_follows_the_batch_and_is_needed_for_other_weights() {
    let rate = |flags: &[&str]| {
        let settings: Settings = settings(flags, "");
        let options = settings.options(2048);
        options.map(|options| options.trainer.schedule.learning_rate)
    };
    let preset = ["--iters=50", "--preset=270M"];
    let with = |batch| rate(&[&preset[..], &[batch]].concat()).unwrap();
    assert_eq!(with("--batch-size=2048"), 5.3e-3);
    assert_eq!(with("--batch-size=512"), 2.65e-3);
    assert_eq!(rate(&preset).unwrap(), 6.63e-4);
    // The batch size is refused later.
    with("--batch-size=0");
    let problem = rate(&["--iters=50", "--start-from=small"]).unwrap_err();
    let expected = "--learning-rate: expected with --start-from, found none; ";
    assert!(problem.to_string().starts_with(expected), "{problem}");
    let given = rate(&["--iters=50", "--start-from=small", "--learning-rate=3e-4"]);
    assert_eq!(given.unwrap(), 3e-4);
}

/// The rates, warm-up and schedule of CoreNet's YAML files.
#[test]
fn recipes_are_corenets() {
    for (size, learning_rate) in [
        ("270M", 5.3e-3),
        ("450M", 3.9e-3),
        ("1.1B", 2.4e-3),
        ("3B", 1.2e-3),
    ] {
        let file = repository(&format!("recipes/pretrain-{size}.toml"));
        let toml = fs::read_to_string(file).unwrap();
        let own: Settings = settings(&["--data=x"], &toml);
        unused::check(&own, &given::<Settings>(&["--data=x"], &toml)).unwrap();
        let preset: Preset = size.parse().unwrap();
        let recipe = Recipe::new(350_000, Recipe::CORENET_TOKENS, Some(preset));
        assert_eq!((recipe.learning_rate, recipe.warmup), (learning_rate, 5000));
        let options = own.options(2048).unwrap();
        assert_eq!(options.batch_size * 2048, 1 << 22);
        // CoreNet recomputes activations but for the smallest model.
        let mut expected = TrainerOptions {
            grad_checkpoint: size != "270M",
            autocast: size != "3B",
            corenet_losses: Some(2048),
            ..recipe.trainer()
        };
        if let (ScheduleKind::CoreNet { end, .. }, ScheduleKind::CoreNet { end: own, .. }) =
            (&mut expected.schedule.kind, options.trainer.schedule.kind)
        {
            assert!((own - learning_rate / 10.0).abs() < 1e-15);
            *end = own;
        }
        assert_eq!(options.trainer, expected, "{size}");
        let corpus = own.corpus(2048, 0, 1).unwrap();
        let expected = CorpusOptions {
            files: vec!["x".into()],
            text_key: "content,text".into(),
            readers: 512,
            shard_files: true,
            clean_text: true,
            ..CorpusOptions::new(Assembly::Truncate)
        };
        assert_eq!(corpus, expected, "{size}");
        let config = Config::layer_wise(own.model.layer_wise(&tales())).unwrap();
        let rows = config.vocab_size();
        assert_eq!((rows, config.max_context_length()), (32_128, 2048));
    }
}

/// A configuration with the keys and values of CoreNet's four files.
fn corenet_yaml(name: &str, max_lr: &str, min_lr: &str, checkpointing: bool) -> String {
    let (mixed, pipeline) = match name {
        "OpenELM-3B" => (
            "",
            "train_eval_pipeline: {name: fsdp_train_eval_pipeline}
fsdp: {sharding_strategy: full_shard, parameter_datatype: bfloat16, cpu_offload: false}
",
        ),
        _ => (
            ", mixed_precision: true, mixed_precision_dtype: bfloat16",
            "",
        ),
    };
    format!(
        "\
taskname: '+ [{name}]'
_length: &length 2048
_rows: &rows 32128
_pad: &pad 32000
common: {{run_label: train, log_freq: 500, auto_resume: true, grad_clip: 1.0,
  save_all_checkpoints: true, save_interval_freq: 5000, eval_every_k_iterations: 10000{mixed}}}
{pipeline}dataset:
  root_train: ''
  disable_val: true
  train_batch_size0: 16
  workers: 4
  persistent_workers: true
  pin_memory: true
  category: language_modeling
  name: general_lm
  language_modeling:
    sequence_length: *length
    min_tokens_per_text: 256
    min_characters_per_text: 200
    shuffle_data: true
    general_lm:
      train_data_info: [{{text_key: content, file_id_range: [0, 5535]}}]
text_tokenizer:
  name: sentence_piece
  sentence_piece: {{enable_nfc_normalization: true, append_sot_token: true, append_eot_token: true}}
loss:
  category: language_modeling
  language_modeling:
    name: cross_entropy
    cross_entropy: {{ignore_index: *pad, use_z_loss: true}}
optim:
  name: adamw
  weight_decay: 0.1
  no_decay_bn_filter_bias: true
  adamw: {{beta1: 0.9, beta2: 0.95, eps: 1.e-8}}
scheduler:
  is_iteration_based: true
  max_iterations: 350000
  name: cosine
  warmup_init_lr: 1.e-06
  warmup_iterations: 5000
  cosine: {{max_lr: {max_lr}, min_lr: {min_lr}}}
model:
  activation_checkpointing: {checkpointing}
  language_modeling:
    name: general_gpt
    general_gpt: {{model_name: {name}, vocab_size: *rows, max_context_length: *length,
      padding_index: *pad}}
stats: {{val: [loss], train: [loss], checkpoint_metric: loss.total_loss}}
"
    )
}

/// The settings of a YAML text, or its error without the file's name.
fn of_corenet(yaml: &str) -> Result<Settings, String> {
    let file = openelm_testing::TempFile::new("openelm.yaml", yaml);
    let read = corenet_yaml::of_pretraining(Some(&file));
    let read = read.map_err(|error| {
        let message = error.to_string();
        let (_, problem) = message.split_once(".yaml: ").unwrap();
        problem.to_owned()
    })?;
    Ok(settings_of(read.unwrap().table))
}

#[test]
fn yaml_of_corenet_has_the_settings_of_the_recipes() {
    for (size, name, max_lr, min_lr) in [
        ("270M", "OpenELM-270M", "0.0053", "0.00053"),
        ("450M", "OpenELM-450M", "0.0039", "0.00039"),
        ("1.1B", "OpenELM-1_1B", "0.0024", "0.00024"),
        ("3B", "OpenELM-3B", "0.0012", "0.00012"),
    ] {
        let file = repository(&format!("recipes/pretrain-{size}.toml"));
        let toml = fs::read_to_string(file).unwrap();
        // A file of CoreNet has the key of one data set.
        let recipe = settings(&["--data=x", "--text-key=content"], &toml);
        let yaml = corenet_yaml(name, max_lr, min_lr, size != "270M");
        let mut own = of_corenet(&yaml).unwrap();
        assert!(own.data.is_none());
        own.data = settings::<Settings>(&["--data=x"], "").data;
        own.average_last = Some(own.options(2048).unwrap().averaged());
        assert_eq!(record(own), record(recipe), "{size}");
    }
}

#[test]
fn yaml_of_corenet_lists_files() {
    let yaml = corenet_yaml("OpenELM-270M", "0.0053", "0.00053", false);
    let groups =
        "[{text_key: content, file_name: 'web/{file_id:05d}.parquet', file_id_range: [7, 9]},
      {text_key: text, file_name: 'pile/{file_id}.json.gz', file_id_range: [0, 1]}]";
    let one = "[{text_key: content, file_id_range: [0, 5535]}]";
    let own = of_corenet(&yaml.replace(one, groups)).unwrap();
    let files = Data::paths(own.data.as_deref().unwrap());
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(
        files,
        ["web/00007.parquet", "web/00008.parquet", "pile/0.json.gz"]
    );
    assert_eq!(own.text_key, "content,text");
}

#[test]
fn other_yaml_is_refused() {
    let yaml = corenet_yaml("OpenELM-270M", "0.0053", "0.00053", false);
    for (from, to, expected) in [
        (
            "grad_clip:",
            "gradient_clip:",
            "common.gradient_clip: unknown key",
        ),
        (
            "name: general_gpt",
            "name: kv_prediction",
            "model.language_modeling.name: expected \"general_gpt\", found \"kv_prediction\"",
        ),
        (
            "model_name: OpenELM-270M",
            "model_name: gpt-test",
            "model.language_modeling.general_gpt.model_name: preset: expected 270M",
        ),
        (
            "name: general_lm",
            "name: commonsense_170k",
            "dataset.name: expected general_lm for `openelm pretrain`, found commonsense_170k",
        ),
        (
            "name: adamw",
            "name: sgd",
            "optim.name: expected \"adamw\", found \"sgd\"",
        ),
        (
            "max_iterations: 350000",
            "max_iterations: many",
            "scheduler.max_iterations: expected a natural number, found \"many\"",
        ),
        (
            "max_iterations: 350000",
            "max_epochs: 3",
            "scheduler.max_iterations: expected a natural number, found none",
        ),
        (
            "text_key: content,",
            "text_key: content, weight: 2,",
            "dataset.language_modeling.general_lm.train_data_info: weight: unknown key",
        ),
        (
            "model:",
            "other:",
            "a YAML file, expected a configuration of CoreNet",
        ),
        ("stats: {", "stats: [", "line "),
    ] {
        assert!(yaml.contains(from), "{from}");
        let problem = of_corenet(&yaml.replacen(from, to, 1)).unwrap_err();
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn every_option_reaches_the_core() {
    const BOTH: &[&str] = &["--iters=50", "--data=books.jsonl"];
    const ITERS: &[&str] = &["--iters=50"];
    const DATA: &[&str] = &["--data=books.jsonl"];
    const TRUNCATE: &[&str] = &["--iters=50", "--data=books.jsonl", "--packing=truncate"];
    const RATE: &[&str] = &["--iters=50", "--data=books.jsonl", "--learning-rate=0.1"];
    let given = [
        ("valid", "held-out.jsonl"),
        ("text-key", "content"),
        ("tokenizer", "tok"),
        ("output", "folder"),
        ("batch-size", "7"),
        ("micro-batch-size", "7"),
        ("max-seq-length", "7"),
        ("packing", "truncate"),
        ("words-per-fragment", "7"),
        ("min-characters", "7"),
        ("min-tokens", "7"),
        ("interleave", "7"),
        ("shuffle", "7"),
        ("epochs", "7"),
        ("skip-corrupt", ""),
        ("shard-files", ""),
        ("clean-text", ""),
        ("corenet-losses", ""),
        ("learning-rate", "0.5"),
        ("warmup", "7"),
        ("warmup-init", "0.5"),
        ("lr-end", "0.5"),
        ("betas", "0.5,0.75"),
        ("eps", "0.5"),
        ("weight-decay", "0.5"),
        ("clip-norm", "0.5"),
        ("z-loss", "0.5"),
        ("label-smoothing", "0.5"),
        ("ema-decay", "0.5"),
        ("dtype", "bfloat16"),
        ("save-dtype", "float16"),
        ("grad-checkpoint", ""),
        ("fsdp", ""),
        ("autocast", ""),
        ("steps-per-eval", "7"),
        ("val-batches", "7"),
        ("val-windows", "70"),
        ("steps-per-report", "7"),
        ("save-every", "7"),
        ("keep-checkpoints", "7"),
        ("average-last", "2"),
        ("seed", "7"),
        ("processes", "2"),
        ("process-timeout", "7"),
        ("preset", "450M"),
        ("num-transformer-layers", "7"),
        ("model-dim", "7"),
        ("head-dim", "7"),
        ("num-gqa-groups", "7"),
        ("qkv-multipliers", "0.75"),
        ("ffn-multipliers", "0.75"),
        ("ffn-dim-divisor", "7"),
        ("vocab-size", "7"),
        ("max-context-length", "7"),
        ("rope-freq-constant", "7"),
        ("share-input-output-layers", "false"),
    ];
    let mut cases: Vec<(&str, &str, &[&str])> = given
        .iter()
        .map(|&(name, value)| (name, value, BOTH))
        .collect();
    // A run needs these two options.
    let record = |settings: Settings| match (&settings.iters, &settings.data) {
        (Some(_), Some(_)) => record(settings),
        missing => format!("{missing:?}"),
    };
    cases.push(("iters", "7", DATA));
    cases.push(("start-from", "small", RATE));
    cases.push(("shuffle-files", "false", TRUNCATE));
    cases.push(("data", "tales.jsonl", ITERS));
    every_option_changes(&cases, record);
}

#[test]
fn tables_of_data_are_groups() {
    let toml = r#"
        iters = 5
        text-key = "body"
        [[data]]
        files = ["refinedweb/*.parquet", "more"]
        text-key = "content"
        format = "parquet"
        weight = 3
        [[data]]
        files = ["pile"]
        weight = 0.5
    "#;
    let corpus = |flags: &[&str], toml: &str| -> CorpusOptions {
        settings::<Settings>(flags, toml).corpus(64, 0, 1).unwrap()
    };
    let groups = [
        CorpusGroup {
            text_key: "content".into(),
            format: Some(FileFormat::Parquet),
            weight: Some(3.0),
            ..CorpusGroup::new(vec!["refinedweb/*.parquet".into(), "more".into()])
        },
        CorpusGroup {
            text_key: "body".into(),
            weight: Some(0.5),
            ..CorpusGroup::new(vec!["pile".into()])
        },
    ];
    let found = corpus(&[], toml);
    assert_eq!((found.groups, found.files), (groups.to_vec(), Vec::new()));
    // The command line replaces the tables.
    let found = corpus(&["--data=a.jsonl,b.jsonl"], toml);
    let files: Vec<PathBuf> = vec!["a.jsonl".into(), "b.jsonl".into()];
    assert_eq!((found.groups, found.files), (Vec::new(), files));
    // Paths beside groups are a group.
    let both = "data = [\"a\", { files = [\"b\"], text-key = \"t\" }, \"c\"]";
    let found = corpus(&[], both).groups;
    assert_eq!(found[0], CorpusGroup::new(vec!["a".into(), "c".into()]));
    assert_eq!((found.len(), &*found[1].text_key), (2, "t"));
}

#[test]
fn former_names_are_accepted() {
    let names = [
        ("from", "start-from", "small"),
        ("steps", "iters", "7"),
        ("sequence-length", "max-seq-length", "7"),
        ("assembly", "packing", "truncate"),
        ("words-per-piece", "words-per-fragment", "7"),
        ("readers", "interleave", "7"),
        ("keep", "keep-checkpoints", "7"),
        ("ranks", "processes", "2"),
        ("rank-timeout", "process-timeout", "7"),
    ];
    for (former, name, value) in names {
        let shown = |flags: &[&str], toml: &str| {
            let settings: Settings = settings(flags, toml);
            format!("{settings:?}")
        };
        let expected = shown(&[&format!("--{name}"), value], "");
        assert_ne!(expected, shown(&[], ""), "{name}");
        assert_eq!(expected, shown(&[&format!("--{former}"), value], ""));
        let value = if value.parse::<u64>().is_ok() {
            value.to_owned()
        } else {
            format!("{value:?}")
        };
        assert_eq!(expected, shown(&[], &format!("{former} = {value}")));
    }
    // Windows are converted to batches, rounded up.
    let windows: Settings = settings(&["--iters=7", "--val-windows=65"], "");
    assert_eq!(windows.options(64).unwrap().val_batches, Some(3));
}

#[test]
fn file_turns_switches_on() {
    let file = "skip-corrupt = true\ngrad-checkpoint = true\n[model]\nhead_dim = 32\n";
    let both: Settings = settings(&["--model-dim", "64"], file);
    assert!(both.skip_corrupt && both.grad_checkpoint);
    let model = (both.model.head_dim, both.model.model_dim);
    assert_eq!(model, (Some(32), Some(64)));
}

#[test]
fn outputs_are_outside_inputs_and_data() {
    let folder = openelm_testing::TempDir::new();
    for name in [
        "data/a.jsonl",
        "run/run.toml",
        "run/tokenizer.json",
        "run/model/config.json",
    ] {
        folder.write(name, "");
    }
    let config = folder.join("run/run.toml");
    let check = |output: &str, name: &str, input: &str, config: Option<&Path>| {
        let (output, input) = (folder.at(output), folder.at(input));
        let flags = ["--output", &output, name, &input];
        let settings: Settings = settings(&flags, "");
        settings.check_output(config).map_err(|error| match error {
            Error::Core(error) => error.to_string(),
            other => panic!("{other}"),
        })
    };
    for (output, name, input, config, expected) in [
        ("data", "--data", "data/*.jsonl", None, "contains an input"),
        ("data/run", "--data", "data", None, "would become data"),
        ("data/run", "--valid", "data", None, "would become data"),
        (
            "run",
            "--tokenizer",
            "run/tokenizer.json",
            None,
            "--tokenizer",
        ),
        ("run", "--start-from", "run/model", None, "--start-from"),
        ("run", "--data", "data", Some(&*config), "--config"),
    ] {
        let error = check(output, name, input, config).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    check("data/run", "--data", "data/a.jsonl", None).unwrap();
    check("run/model/next", "--start-from", "run/model", None).unwrap();
}
