//! Compares fine-tuning with what mlx-lm's own trainer did on the same model, rows and start:
//! `parity/finetune.py` wrote it to the folder `OPENELM_FINETUNE`; `make parity` does all of it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Model,
    adapter::Adapter,
    internal::{Batch, ReadOptions, Weights},
    train::{
        Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule, ScheduleKind, Trainer,
        TrainerOptions,
    },
    weights::Checkpoint,
};
use openelm_testing::TempDir;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Largest difference of a step's loss, relative.
const LOSS_BOUND: f64 = 1e-4;
/// Largest distance of a trained tensor after the last step, relative to its length. (Of single
/// numbers Adam turns a gradient of nearly zero into a full step of either sign.)
const TENSOR_BOUND: f32 = 1e-3;
/// Largest difference of a logit of the adapted model.
const LOGIT_BOUND: f32 = 2e-4;
/// The same between the adapter that we trained and the one that mlx-lm trained: one such step moves
/// a logit by some 4e-3 where the scale is 10.
const TRAINED_LOGIT_BOUND: f32 = 1e-2;

/// Cases that are trained with checkpointing too, one of each kind: with FULL=1 all are.
const CHECKPOINTED: [&str; 6] = [
    "lora-accumulate-exact",
    "lora-prompts-exact",
    "dora-keys-exact",
    "full-exact",
    "qlora-exact",
    "dpo_sigmoid",
];

#[derive(Deserialize)]
struct Case {
    mask: String,
    base: String,
    data: String,
    optimizer: String,
    optimizer_settings: BTreeMap<String, Value>,
    learning_rate: f64,
    lr_schedule: Option<Value>,
    grad_accumulation_steps: usize,
    max_seq_length: usize,
    trainable_parameters: u64,
    #[serde(default)]
    logit_tokens: Vec<u32>,
    beta: Option<f32>,
    loss: Option<String>,
}

#[derive(Deserialize)]
struct Losses {
    train: Vec<f64>,
    #[serde(default)]
    tokens: Vec<usize>,
    learning_rate: Vec<f32>,
    rows: Vec<Vec<usize>>,
    #[serde(default)]
    valid: Vec<Validated>,
    valid_after: Option<Validated>,
    #[serde(default)]
    reference_chosen: Vec<f32>,
    #[serde(default)]
    reference_rejected: Vec<f32>,
}

#[derive(Deserialize)]
struct Validated {
    loss: f64,
    rows: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Text(Vec<u32>),
    Prompt { tokens: Vec<u32>, offset: usize },
}

#[derive(Deserialize)]
struct Sided {
    tokens: Vec<u32>,
    first_target: usize,
}

#[test]
#[ignore = "reads what Python made: make parity"]
fn fine_tuning_matches_mlx_lm() {
    let folder = PathBuf::from(std::env::var_os("OPENELM_FINETUNE").expect("set by parity/run.sh"));
    let index: BTreeMap<String, Vec<String>> = read(&folder.join("index.json"));
    let full = std::env::var_os("FULL").is_some_and(|value| value == "1");
    let mut compared = 0;
    for name in index["cases"].iter().chain(&index["dpo"]) {
        compare(&folder, name, false);
        if full || CHECKPOINTED.contains(&name.as_str()) {
            compare(&folder, name, true);
        }
        compared += 1;
    }
    assert!(
        compared >= if full { 36 } else { 22 },
        "only {compared} cases"
    );
}

fn compare(folder: &Path, name: &str, checkpoint: bool) {
    let output = folder.join(name);
    let case: Case = read(&output.join("case.json"));
    let expected: Losses = read(&output.join("losses.json"));
    let model = model(&folder.join(&case.base));
    let mut trainer = Trainer::new(&model, start(&output), options(&case, checkpoint)).unwrap();
    assert_eq!(
        trainer.parameter_count(),
        case.trainable_parameters,
        "{name}"
    );
    let worst = compare_losses(folder, name, &case, &expected, &mut trainer);
    // mlx-lm reads it from there: parity/load_adapters.py.
    let written = output.join("ours");
    trainer.adapter().save(&written, model.config()).unwrap();
    let furthest = compare_tensors(name, &case, &expected, &output);
    let logits = if case.logit_tokens.is_empty() {
        0.0
    } else {
        compare_logits(name, &case, &model, &output)
    };
    let mode = if checkpoint { "checkpointed" } else { "" };
    eprintln!("{name:24} {mode:12} loss {worst:.1e}  tensors {furthest:.1e}  logits {logits:.1e}");
}

/// Trains and returns the largest relative difference of a loss.
fn compare_losses(
    folder: &Path,
    name: &str,
    case: &Case,
    expected: &Losses,
    trainer: &mut Trainer,
) -> f64 {
    let mut worst = 0.0_f64;
    let preferences = case.loss.is_some();
    let rows = if preferences {
        Vec::new()
    } else {
        rows(folder, case, "train")
    };
    for (i, (loss, chosen)) in expected.train.iter().zip(&expected.rows).enumerate() {
        let step = if preferences {
            let (batch, preference) = preference(folder, case, expected, chosen);
            trainer.step_preference(&batch, &preference).unwrap()
        } else {
            let batch = batch(&rows, chosen, case);
            let step = trainer.step(&batch).unwrap();
            assert_eq!(
                step.targets, expected.tokens[i],
                "{name}: targets of step {i}"
            );
            step
        };
        if case.optimizer != "adafactor" {
            let rate = expected.learning_rate[i];
            // With accumulation mlx-lm reports the rate of the last update, not of the next.
            if case.grad_accumulation_steps == 1 {
                assert!(
                    (step.learning_rate - rate).abs() <= 1e-6 * rate,
                    "{name}: rate of {i}"
                );
            }
        }
        worst = worst.max((f64::from(step.loss) - loss).abs() / loss.abs().max(1e-6));
    }
    assert!(worst <= LOSS_BOUND, "{name}: losses differ by {worst:e}");
    if let Some(after) = &expected.valid_after {
        let rows = rows_of(folder, case);
        let batches: Vec<Batch> = after.rows.iter().map(|c| batch(&rows, c, case)).collect();
        let found = trainer.evaluate(&batches).unwrap();
        let off = (found - after.loss).abs() / after.loss;
        assert!(
            off <= LOSS_BOUND,
            "{name}: validation after: {found}, not {}",
            after.loss
        );
        assert!(!expected.valid.is_empty(), "{name}");
    }
    worst
}

/// Compares our adapter with the one that mlx-lm trained; returns the largest distance.
fn compare_tensors(name: &str, case: &Case, expected: &Losses, output: &Path) -> f32 {
    let found = Array::load_safetensors(output.join("ours/adapters.safetensors")).unwrap();
    let wanted = Array::load_safetensors(output.join("final.safetensors")).unwrap();
    assert_eq!(found.len(), wanted.len(), "{name}");
    let mut furthest = 0.0_f32;
    for (tensor, wanted) in &wanted {
        let off = if case.optimizer == "lion" {
            signed_distance(name, &found[tensor], wanted, &expected.learning_rate)
        } else {
            length(&found[tensor].subtract(wanted).unwrap()) / length(wanted).max(1e-6)
        };
        assert!(off <= TENSOR_BOUND, "{name}: {tensor} is off by {off:e}");
        furthest = furthest.max(off);
    }
    furthest
}

/// Compares the logits of mlx-lm's adapter, and of ours, with those of mlx-lm; returns the largest
/// difference. Writes the logits of ours for parity/load_adapters.py.
fn compare_logits(name: &str, case: &Case, model: &Model, output: &Path) -> f32 {
    let written = output.join("ours");
    let mut logits = 0.0_f32;
    let of = |source: &Path| {
        let mut adapted = model.clone();
        adapted
            .add_adapter("trained", &Adapter::load(source).unwrap())
            .unwrap();
        logits_of(&adapted, &case.logit_tokens)
    };
    let wanted = &Array::load_safetensors(output.join("logits.safetensors")).unwrap()["logits"];
    let ours = of(&written);
    for (logits_found, bound) in [(&of(output), LOGIT_BOUND), (&ours, TRAINED_LOGIT_BOUND)] {
        let off = distance(logits_found, wanted);
        assert!(off <= bound, "{name}: logits differ by {off:e}");
        logits = logits.max(off);
    }
    Array::save_safetensors(
        [("logits", &ours)],
        None,
        written.join("logits.safetensors"),
    )
    .unwrap();
    logits
}

/// Relative distance of tensors that Lion trained, but for a few entries.
///
/// Lion moves every entry by the sign of its momentum times the rate: where the momentum is next to
/// zero, rounding decides the sign, and the entry is two rates off though nothing is wrong. At
/// most one entry in a hundred may be (but one of any tensor), and none further than all rates
/// together twice.
fn signed_distance(name: &str, found: &Array, wanted: &Array, rates: &[f32]) -> f32 {
    let rate = rates.iter().copied().fold(0.0_f32, f32::max);
    let furthest = 2.0 * rates.iter().sum::<f32>() + 1e-6;
    let (found, wanted) = (
        found.flatten(None, None).unwrap(),
        wanted.flatten(None, None).unwrap(),
    );
    let (found, wanted) = (found.as_slice::<f32>(), wanted.as_slice::<f32>());
    assert_eq!(found.len(), wanted.len(), "{name}");
    let (mut turned, mut square, mut whole) = (0_usize, 0.0_f32, 0.0_f32);
    for (a, b) in found.iter().zip(wanted) {
        let off = (a - b).abs();
        assert!(
            off <= furthest,
            "{name}: an entry is off by {off:e}, the rates by {furthest:e}"
        );
        whole += b * b;
        if off > rate / 2.0 {
            turned += 1;
        } else {
            square += off * off;
        }
    }
    let most = (found.len() / 100).max(1);
    assert!(
        turned <= most,
        "{name}: {turned} of {} entries turned",
        found.len()
    );
    square.sqrt() / whole.sqrt().max(1e-6)
}

fn model(folder: &Path) -> Model {
    let config = Config::load(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.check(&config).unwrap();
    let options = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized: true,
    };
    let weights = Weights::read(&checkpoint, &config, options, &mut |_, _| {}).unwrap();
    Model::new(config, weights, Dtype::Float32).unwrap()
}

/// mlx-lm's adapter before the first step.
fn start(output: &Path) -> Adapter {
    let folder = TempDir::new();
    fs::copy(
        output.join("adapter_config.json"),
        folder.join("adapter_config.json"),
    )
    .unwrap();
    fs::copy(
        output.join("init.safetensors"),
        folder.join("adapters.safetensors"),
    )
    .unwrap();
    Adapter::load(&folder).unwrap()
}

fn options(case: &Case, grad_checkpoint: bool) -> TrainerOptions {
    let kind = match case.optimizer.as_str() {
        "adam" => OptimizerKind::Adam,
        "adamw" => OptimizerKind::AdamW,
        "sgd" => OptimizerKind::Sgd,
        "lion" => OptimizerKind::Lion,
        "adafactor" => OptimizerKind::Adafactor,
        other => panic!("optimizer {other}"),
    };
    let number = |key: &str| case.optimizer_settings.get(key).and_then(Value::as_f64);
    let optimizer = Optimizer {
        weight_decay: number("weight_decay").unwrap_or_default() as f32,
        bias_correction: case.optimizer_settings.get("bias_correction") == Some(&Value::Bool(true)),
        decay_vectors: true,
        ..Optimizer::new(kind)
    };
    let mut schedule = Schedule {
        learning_rate: case.learning_rate,
        ..Schedule::default()
    };
    if let Some(block) = &case.lr_schedule {
        assert_eq!(block["name"], "cosine_decay");
        schedule.learning_rate = block["arguments"][0].as_f64().unwrap();
        schedule.kind = ScheduleKind::Cosine {
            steps: block["arguments"][1].as_u64().unwrap(),
            end: block["arguments"][2].as_f64().unwrap(),
        };
        schedule.warmup = block["warmup"].as_u64().unwrap();
        schedule.warmup_init = block["warmup_init"].as_f64().unwrap();
    }
    if kind == OptimizerKind::Adafactor {
        // mlx-lm's relative step, min(0.01, step^-0.5), is this for the first 10,000.
        schedule.learning_rate = 0.01;
    }
    TrainerOptions {
        optimizer,
        schedule,
        grad_accumulation_steps: case.grad_accumulation_steps,
        grad_checkpoint,
        ..TrainerOptions::default()
    }
}

fn rows(folder: &Path, case: &Case, part: &str) -> Vec<(Vec<u32>, usize)> {
    let mut tokens: BTreeMap<String, BTreeMap<String, Vec<Row>>> =
        read(&folder.join("tokens.json"));
    let rows = tokens.get_mut(&case.data).unwrap().remove(part).unwrap();
    rows.into_iter()
        .map(|row| match row {
            Row::Text(tokens) => (tokens, 0),
            Row::Prompt { tokens, offset } => (tokens, offset),
        })
        .collect()
}

fn rows_of(folder: &Path, case: &Case) -> Vec<(Vec<u32>, usize)> {
    rows(folder, case, "valid")
}

/// The batch that mlx-lm made of the rows `chosen`, or, in "exact" cases, should have made.
fn batch(rows: &[(Vec<u32>, usize)], chosen: &[usize], case: &Case) -> Batch {
    let longest = chosen.iter().map(|&row| rows[row].0.len()).max().unwrap();
    let width = (1 + 32 * longest.div_ceil(32)).min(case.max_seq_length);
    let mut made = Batch {
        inputs: Vec::new(),
        targets: Vec::new(),
        mask: Vec::new(),
        documents: Vec::new(),
        batch: chosen.len(),
        length: width - 1,
    };
    for &row in chosen {
        let (tokens, offset) = &rows[row];
        let mut padded = tokens.clone();
        padded.resize(width, 0);
        made.inputs.extend(&padded[..width - 1]);
        made.targets.extend(&padded[1..]);
        let last = tokens.len() + usize::from(case.mask == "mlx-lm" && case.loss.is_none());
        made.mask
            .extend((1..width).map(|step| step >= *offset && step < last));
    }
    made
}

fn preference(folder: &Path, case: &Case, losses: &Losses, pairs: &[usize]) -> (Batch, Preference) {
    let mut all: BTreeMap<String, Value> = read(&folder.join("pairs.json"));
    let all: Vec<BTreeMap<String, Sided>> =
        serde_json::from_value(all.remove("pairs").unwrap()).unwrap();
    let mut rows = Vec::new();
    let mut reference = Vec::new();
    for (side, sums) in [
        ("chosen", &losses.reference_chosen),
        ("rejected", &losses.reference_rejected),
    ] {
        for &pair in pairs {
            let answer = &all[pair][side];
            rows.push((answer.tokens.clone(), answer.first_target));
            reference.push(sums[pair]);
        }
    }
    let chosen: Vec<usize> = (0..rows.len()).collect();
    let made = batch(&rows, &chosen, case);
    let loss = match case.loss.as_deref() {
        Some("sigmoid") => PreferenceLoss::Sigmoid,
        Some("hinge") => PreferenceLoss::Hinge,
        other => panic!("loss {other:?}"),
    };
    let beta = case.beta.unwrap();
    (
        made,
        Preference {
            loss,
            beta,
            reference,
        },
    )
}

fn logits_of(model: &Model, tokens: &[u32]) -> Array {
    let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    model.logits(&hidden).unwrap().squeeze_axes(&[0]).unwrap()
}

fn distance(a: &Array, b: &Array) -> f32 {
    assert_eq!(a.shape(), b.shape());
    largest(&a.subtract(b).unwrap())
}

fn length(a: &Array) -> f32 {
    a.square()
        .unwrap()
        .sum(false)
        .unwrap()
        .item_exact::<f32>()
        .sqrt()
}

fn largest(a: &Array) -> f32 {
    a.abs().unwrap().max(false).unwrap().item_exact::<f32>()
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
