//! Defaults of fine-tuning and pre-training, kinds of adapters, and the data of a run.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use openelm_core::{
    Config, Dtype, Model, Tokenizer,
    adapter::{Adapter, AdapterKind, AdapterOptions, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    corpus::{Assembly, CorpusOptions},
    finetune::{DataOptions, DataSplits, FinetuneOptions, TrainingData},
    internal::random_weights,
    pretrain::{PretrainOptions, Recipe, new_architecture},
};
use openelm_testing::TempDir;

fn model() -> Model {
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let weights = random_weights(&config, Dtype::Float32, 3).unwrap();
    Model::new(config, weights, Dtype::Float32).unwrap()
}

#[test]
fn trains_the_last_16_layers_by_default() {
    for preset in Preset::ALL {
        let config = preset.config();
        let matrices = TargetModules::default().matrices(&config).unwrap();
        assert_eq!(matrices.len(), 16 * 4, "{preset:?}");
        let first = config.num_transformer_layers() - 16;
        assert!(matrices[0].0.contains(&format!("layers.{first}.")));
    }
    let model = model();
    let zero = TargetModules {
        num_layers: Some(0),
        ..TargetModules::default()
    };
    let error = zero.matrices(model.config()).unwrap_err().to_string();
    assert_eq!(error, "num_layers: expected at least 1, found 0");
    let many = TargetModules {
        num_layers: Some(3),
        ..TargetModules::default()
    };
    let error = many.matrices(model.config()).unwrap_err().to_string();
    assert_eq!(error, "num_layers: expected at most the model's 2, found 3");
}

/// A model with fewer than 16 layers is trained completely; full fine-tuning includes the embedding
/// and the final norm.
#[test]
fn adapter_has_the_kind_of_its_options() {
    let model = model();
    let tensors = model.config().tensors().len();
    for (kind, targets) in [
        (AdapterKind::Lora, 2 * 4),
        (AdapterKind::Dora, 2 * 4),
        (AdapterKind::Full, tensors),
    ] {
        let options = AdapterOptions {
            kind,
            ..AdapterOptions::default()
        };
        let adapter = Adapter::new(&model, &options, 0).unwrap();
        assert_eq!(adapter.kind(), kind);
        assert_eq!(adapter.targets().len(), targets, "{kind:?}");
    }
}

/// A folder with these files.
fn folder_of(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new();
    for (file, text) in files {
        folder.write(file, text);
    }
    folder
}

fn tales() -> Tokenizer {
    let tales = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tales");
    Tokenizer::find(tales.as_ref(), None).unwrap()
}

fn read(folder: &TempDir, options: &DataOptions) -> openelm_core::Result<DataSplits> {
    DataSplits::read(folder, &tales(), &FinetuneOptions::default(), options)
}

#[test]
fn reads_data_by_its_use() {
    let row = "{\"text\": \"Once upon a time\"}\n";
    let folder = folder_of(&[
        ("train.jsonl", &row.repeat(3)),
        ("valid.jsonl", row),
        ("test.jsonl", row),
    ]);
    let rows = |test| {
        let options = DataOptions {
            test,
            ..DataOptions::default()
        };
        let splits = read(&folder, &options).unwrap();
        let count = |split: &openelm_core::finetune::Split| split.counts.rows;
        splits.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(rows(false), [3, 1]);
    assert_eq!(rows(true), [3, 1, 1]);

    let pair = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
    let folder = folder_of(&[("train.jsonl", pair)]);
    let preferences = DataOptions {
        preferences: true,
        ..DataOptions::default()
    };
    let splits = read(&folder, &preferences).unwrap();
    assert!(matches!(splits.train.data, TrainingData::Pairs(pairs) if pairs.len() == 1));

    let folder = folder_of(&[("valid.jsonl", row)]);
    let error = read(&folder, &DataOptions::default()).unwrap_err();
    let expected = format!(
        "{}: no training data: train.jsonl, train.json or train.txt",
        folder.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn recipe_follows_from_steps_and_size() {
    let recipe = |steps, tokens, preset| {
        let recipe = Recipe::new(steps, tokens, preset);
        (recipe.learning_rate, recipe.warmup)
    };
    let corenet = 2048 * 2048;
    assert_eq!(recipe(2000, 65_536, None), (3e-3, 200));
    let small = Some(Preset::Size270M);
    assert_eq!(recipe(350_000, corenet, small), (5.3e-3, 5000));
    assert_eq!(recipe(350_000, 2 * corenet, small), (5.3e-3, 5000));
    // The rate of a smaller update is smaller: 5.3e-3 / sqrt(64).
    assert_eq!(recipe(350_000, 65_536, small), (6.63e-4, 5000));
    assert_eq!(recipe(10, 2048, Some(Preset::Size3B)), (2.65e-5, 1));
}

#[test]
fn corenet_filters_apply_to_single_documents_only() {
    let filters = |options: CorpusOptions| (options.min_characters, options.min_tokens);
    assert_eq!(filters(CorpusOptions::default()), (0, 0));
    assert_eq!(CorpusOptions::default().assembly, Assembly::Pack);
    assert_eq!(filters(CorpusOptions::new(Assembly::Truncate)), (200, 256));
}

#[test]
fn new_architecture_fits_its_tokenizer() {
    let config = new_architecture(Some(Preset::Size450M), &tales(), |config| {
        config.max_context_length = 128;
    });
    let expected = LayerWiseConfig {
        vocab_size: 2048,
        max_context_length: 128,
        rope_max_length: 256,
        ..Preset::Size450M.settings()
    };
    assert_eq!(config, expected);
}

/// Sizes are refused before anything is allocated.
#[test]
fn rejects_sizes_beyond_memory() {
    let model = model();
    for rank in [1 << 31, 5_000_000_000, usize::MAX] {
        let options = AdapterOptions {
            lora: LoraOptions {
                rank,
                ..LoraOptions::default()
            },
            ..AdapterOptions::default()
        };
        let error = Adapter::new(&model, &options, 0).unwrap_err().to_string();
        // The widest side of a matrix is the gated FFN's.
        let most = i32::MAX as usize / 512;
        assert_eq!(
            error,
            format!("rank: expected at most {most}, found {rank}")
        );
    }
    let options = PretrainOptions::new(Recipe::new(5, 1024, None));
    for (processes, expected) in [
        (0, "processes: expected at least 1, found 0"),
        (
            5,
            "batch_size: expected a multiple of 5, the number of processes; found 32",
        ),
        (
            usize::MAX,
            "processes: expected at most 32, the batch size, found 18446744073709551615",
        ),
    ] {
        let error = options.check(processes).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
}
