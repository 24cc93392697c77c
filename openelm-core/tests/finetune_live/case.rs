//! A case written by `parity/finetune.py`: files, rows and options.

use std::{collections::BTreeMap, fs, path::Path};

use openelm_core::{
    Config, Dtype, Model,
    adapter::Adapter,
    internal::{Batch, ReadOptions, Weights},
    train::{
        Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule, ScheduleKind,
        TrainerOptions,
    },
    weights::Checkpoint,
};
use openelm_testing::TempDir;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) mask: String,
    pub(crate) base: String,
    pub(crate) data: String,
    pub(crate) optimizer: String,
    pub(crate) optimizer_settings: BTreeMap<String, Value>,
    pub(crate) learning_rate: f64,
    pub(crate) lr_schedule: Option<Value>,
    pub(crate) grad_accumulation_steps: usize,
    pub(crate) max_seq_length: usize,
    pub(crate) trainable_parameters: u64,
    #[serde(default)]
    pub(crate) logit_tokens: Vec<u32>,
    pub(crate) beta: Option<f32>,
    pub(crate) loss: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Losses {
    pub(crate) train: Vec<f64>,
    #[serde(default)]
    pub(crate) tokens: Vec<usize>,
    pub(crate) learning_rate: Vec<f32>,
    pub(crate) rows: Vec<Vec<usize>>,
    #[serde(default)]
    pub(crate) valid: Vec<Validated>,
    pub(crate) valid_after: Option<Validated>,
    #[serde(default)]
    pub(crate) reference_chosen: Vec<f32>,
    #[serde(default)]
    pub(crate) reference_rejected: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct Validated {
    pub(crate) loss: f64,
    pub(crate) rows: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Text(Vec<u32>),
    Prompt { tokens: Vec<u32>, offset: usize },
}

#[derive(Deserialize)]
pub(crate) struct Sided {
    pub(crate) tokens: Vec<u32>,
    pub(crate) first_target: usize,
}

pub(crate) fn model(folder: &Path) -> Model {
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
pub(crate) fn start(output: &Path) -> Adapter {
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

pub(crate) fn options(case: &Case, grad_checkpoint: bool) -> TrainerOptions {
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
        // mlx-lm's relative step, min(0.01, step^-0.5), equals this for the first 10,000 steps.
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

pub(crate) fn rows(folder: &Path, case: &Case, part: &str) -> Vec<(Vec<u32>, usize)> {
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

pub(crate) fn rows_of(folder: &Path, case: &Case) -> Vec<(Vec<u32>, usize)> {
    rows(folder, case, "valid")
}

/// The batch that mlx-lm made from the rows `chosen`; in "exact" cases, the correct batch.
pub(crate) fn batch(rows: &[(Vec<u32>, usize)], chosen: &[usize], case: &Case) -> Batch {
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

pub(crate) fn preference(
    folder: &Path,
    case: &Case,
    losses: &Losses,
    pairs: &[usize],
) -> (Batch, Preference) {
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

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
