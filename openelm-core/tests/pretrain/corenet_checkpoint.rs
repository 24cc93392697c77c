//! Runs that continue a training checkpoint of CoreNet.

use std::{collections::HashMap, fs, path::Path};

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error,
    config::{LayerWiseConfig, Preset},
    corpus::Sequence,
    pretrain::{
        CoreNetCheckpoint, MemorySource, Pretrain, PretrainEvent, PretrainOptions, Recipe,
        SequenceSource,
    },
    train::ScheduleKind,
};
use openelm_testing::TempDir;

use crate::{
    tiny::{config, distance, documents, finish, options, packed, tensors},
    torch::{Python, saved},
};

const RECIPE: Recipe = Recipe {
    iters: 15,
    learning_rate: 2e-3,
    warmup: 3,
};

/// Updates before the checkpoint.
const BEFORE: usize = 5;

/// The order of CoreNet's modules: of `named_parameters` and of the state dict.
fn module_order() -> Vec<String> {
    let mut names = vec!["token_embeddings".to_owned()];
    for layer in 0..config().num_transformer_layers() {
        for part in [
            "attn.qkv_proj",
            "attn.q_norm",
            "attn.k_norm",
            "attn.out_proj",
            "ffn.proj_1",
            "ffn.proj_2",
            "ffn_norm",
            "attn_norm",
        ] {
            names.push(format!("layers.{layer}.{part}"));
        }
    }
    names.push("norm".to_owned());
    names.iter().map(|name| format!("{name}.weight")).collect()
}

/// Rows that continue after `skipped` of them.
fn source(skipped: usize) -> Box<dyn SequenceSource> {
    let mut rows = packed(&documents(40), 24);
    let count = rows.len();
    rows.rotate_left(skipped % count);
    Box::new(MemorySource::new(rows, (0, 1)))
}

fn with_average() -> PretrainOptions {
    let mut options = PretrainOptions {
        save_every: BEFORE as u64,
        ..options(&RECIPE)
    };
    options.trainer.ema_decay = Some(0.9);
    options
}

/// The first updates of the run in `folder`, as CoreNet's training checkpoint: the grouping of
/// `parameter_list`, the numbering of `torch.optim.Optimizer.state_dict`.
fn checkpoint(folder: &Path) -> Python {
    let state = Array::load_safetensors(folder.join("training_state.safetensors")).unwrap();
    let tensor = |group: &str, name: &str, slot: &str| {
        let array = &state[&format!("{group}:transformer.{name}{slot}")];
        let values = array.to_vec_exact::<f32>().unwrap();
        Python::Tensor(array.shape().to_vec(), values)
    };
    let dict = |group: &str| {
        let names = module_order();
        let entries = names
            .iter()
            .map(|name| (name.as_str().into(), tensor(group, name, "")));
        Python::Dict(entries.collect())
    };
    let (vectors, matrices): (Vec<String>, Vec<String>) = module_order()
        .into_iter()
        .partition(|name| name.contains("norm"));
    let numbers = |from: usize, count: usize| {
        Python::List(
            (from..from + count)
                .map(|i| Python::Int(i as i32))
                .collect(),
        )
    };
    let group = |from, count| {
        Python::dict([
            ("lr", Python::None),
            ("amsgrad", Python::None),
            ("params", numbers(from, count)),
        ])
    };
    let groups = vec![
        group(0, matrices.len()),
        group(matrices.len(), vectors.len()),
    ];
    let order = [matrices, vectors].concat();
    let moments = order.iter().enumerate().map(|(number, name)| {
        let slots = Python::dict([
            ("step", Python::Tensor(vec![], vec![BEFORE as f32])),
            ("exp_avg", tensor("optimizer", name, ".m")),
            ("exp_avg_sq", tensor("optimizer", name, ".v")),
        ]);
        (Python::Int(number as i32), slots)
    });
    let optimizer = Python::dict([
        ("state", Python::Dict(moments.collect())),
        ("param_groups", Python::List(groups)),
    ]);
    Python::dict([
        ("iterations", Python::Int(BEFORE as i32)),
        ("epoch", Python::Int(0)),
        ("model_state_dict", dict("parameter")),
        ("optim_state_dict", optimizer),
        ("best_metric", Python::None),
        ("is_interval_ckpt", Python::None),
        ("gradient_scaler_state_dict", Python::dict([])),
        ("ema_state_dict", dict("average")),
    ])
}

/// The checkpoint after the first updates.
fn early_checkpoint() -> Python {
    let folder = TempDir::new();
    let mut run = Pretrain::new(config(), source(0), None, &folder, with_average(), None).unwrap();
    let saved = |event: &PretrainEvent| matches!(event, PretrainEvent::Saved { .. });
    assert!(run.by_ref().any(|event| saved(&event.unwrap())));
    checkpoint(&folder)
}

fn start(
    checkpoint: &Python,
    folder: &TempDir,
    options: PretrainOptions,
) -> Result<Pretrain, Error> {
    let file = folder.write("training_checkpoint_last.pt", saved(checkpoint));
    let options = PretrainOptions {
        model: Some(file),
        ..options
    };
    let source = source(BEFORE * options.batch_size);
    Pretrain::new(config(), source, None, folder.join("run"), options, None)
}

#[test]
fn run_continues_as_an_undisturbed_run() {
    let whole = TempDir::new();
    let mut run = Pretrain::new(config(), source(0), None, &whole, with_average(), None).unwrap();
    let steps = |events: &[PretrainEvent]| {
        let steps = events.iter().filter_map(|event| match event {
            PretrainEvent::Step { step, .. } => Some((step.iteration, *step)),
            _ => None,
        });
        steps.collect::<HashMap<_, _>>()
    };
    let expected = steps(&finish(&mut run));

    let numbered = early_checkpoint();
    let mut named = numbered.clone();
    by_name(&mut named);
    for checkpoint in [numbered, named] {
        let folder = TempDir::new();
        let mut run = start(&checkpoint, &folder, with_average()).unwrap();
        assert_eq!(run.iteration(), BEFORE as u64);
        let found = steps(&finish(&mut run));
        assert_eq!(found.len(), 10);
        for (iteration, step) in found {
            let expected = expected[&iteration];
            assert_eq!(step.learning_rate, expected.learning_rate);
            assert!((step.loss - expected.loss).abs() < 1e-6, "{iteration}");
        }
        for result in ["model", "ema"] {
            let [expected, found] =
                [&whole.join(result), &folder.join("run").join(result)].map(|path| tensors(path));
            let off = distance(&expected, &found);
            assert!(off < 1e-6, "{result}: {off}");
        }
    }
}

/// The names of FSDP's `optim_state_dict` instead of numbers, in one group.
fn by_name(checkpoint: &mut Python) {
    let (vectors, matrices): (Vec<String>, Vec<String>) = module_order()
        .into_iter()
        .partition(|name| name.contains("norm"));
    let names = [matrices, vectors].concat();
    let names: Vec<Python> = names.iter().map(|name| name.as_str().into()).collect();
    let optimizer = checkpoint.at("optim_state_dict");
    let Python::Dict(state) = optimizer.at("state") else {
        panic!("expected a dict");
    };
    for ((key, _), name) in state.iter_mut().zip(&names) {
        *key = name.clone();
    }
    *optimizer.at("param_groups") =
        Python::List(vec![Python::dict([("params", Python::List(names))])]);
}

/// A file of PyTorch 2.2 (`parity/corenet_training.py`).
#[test]
fn file_of_pytorch_is_continued() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/pytorch_training.pt");
    let config = Config::layer_wise(LayerWiseConfig {
        model_dim: 16,
        num_transformer_layers: 1,
        head_dim: 8,
        num_gqa_groups: Some(1),
        ffn_dim_divisor: 16,
        vocab_size: 20,
        max_context_length: 16,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let checkpoint = CoreNetCheckpoint::open(&file).unwrap();
    assert_eq!(checkpoint.iteration(), Some(3));
    assert!(checkpoint.has_average());
    let folder = TempDir::new();
    let mut options = PretrainOptions {
        model: Some(file),
        dtype: Some(Dtype::Float32),
        iters: 4,
        ..with_average()
    };
    // A step without a gradient, a decay and a rate leaves the weights.
    options.trainer.clip_norm = Some(1e-30);
    options.trainer.schedule.learning_rate = 0.0;
    options.trainer.schedule.warmup = 0;
    options.trainer.schedule.kind = ScheduleKind::Constant;
    let rows = vec![Sequence {
        tokens: vec![1, 5, 7, 2, 9],
        document_starts: vec![0],
    }];
    let rows = Box::new(MemorySource::new(rows, (0, 1)));
    finish(&mut Pretrain::new(config, rows, None, &folder, options, None).unwrap());
    let state = Array::load_safetensors(folder.join("training_state.safetensors")).unwrap();
    let mut names = module_order();
    names.retain(|name| !name.starts_with("layers.1."));
    assert_eq!(state.len(), 4 * names.len());
    for (place, name) in (1..).map(|place| place as f32).zip(names) {
        let mean = 0.9 * 0.25 * place + 0.1 * 0.125 * place;
        for (group, slot, expected) in [
            ("parameter", "", 0.125 * place),
            ("optimizer", ".m", 0.9 * place),
            ("optimizer", ".v", 95.0 * place),
            ("average", "", mean),
        ] {
            let array = &state[&format!("{group}:transformer.{name}{slot}")];
            let values = array.to_vec_exact::<f32>().unwrap();
            let close = |value: &f32| (value - expected).abs() <= 1e-6 * expected;
            assert!(values.iter().all(close), "{group} {name}{slot}: {expected}");
        }
    }
}

#[test]
fn schedule_follows_the_iteration_and_the_moments_their_steps() {
    // A run that began again is one iteration ahead of its optimizer.
    let mut checkpoint = early_checkpoint();
    *checkpoint.at("iterations") = Python::Int(7);
    let folder = TempDir::new();
    let options = PretrainOptions {
        iters: 9,
        ..with_average()
    };
    let rate = options.trainer.schedule.at(7);
    let mut run = start(&checkpoint, &folder, options).unwrap();
    let first = run.next().unwrap().unwrap();
    let PretrainEvent::Step { step, .. } = first else {
        panic!("{first:?}");
    };
    assert_eq!((step.iteration, step.learning_rate), (8, rate));
}

#[test]
fn interrupted_continuation_resumes_to_the_same_bytes() {
    let checkpoint = early_checkpoint();
    let (whole, parts) = (TempDir::new(), TempDir::new());
    finish(&mut start(&checkpoint, &whole, with_average()).unwrap());
    let mut run = start(&checkpoint, &parts, with_average()).unwrap();
    run.by_ref().take(7).for_each(drop);
    drop(run);
    let source = source(BEFORE * with_average().batch_size);
    let folder = parts.join("run");
    let mut run = Pretrain::resume(config(), source, None, folder, with_average(), None).unwrap();
    finish(&mut run);
    let read = |folder: &TempDir| fs::read(folder.join("run/model/model.safetensors")).unwrap();
    assert!(read(&whole) == read(&parts));
}

#[test]
fn bare_weights_begin_at_the_first_iteration() {
    let mut checkpoint = early_checkpoint();
    let weights = checkpoint.at("model_state_dict").clone();
    let folder = TempDir::new();
    let run = start(&weights, &folder, with_average()).unwrap();
    assert_eq!(run.iteration(), 0);
    let file = CoreNetCheckpoint::open(folder.join("training_checkpoint_last.pt")).unwrap();
    assert_eq!((file.iteration(), file.vocab_size().unwrap()), (None, 50));
    let message = file.architecture().unwrap_err().to_string();
    assert!(
        message.contains("none of OpenELM's four sizes"),
        "{message}"
    );
}

#[test]
fn other_states_are_refused() {
    let checkpoint = early_checkpoint();
    let refusal = |change: &dyn Fn(&mut Python)| {
        let mut changed = checkpoint.clone();
        change(&mut changed);
        let folder = TempDir::new();
        let error = start(&changed, &folder, with_average()).unwrap_err();
        assert!(!folder.join("run").exists());
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 500, "{message}");
        message
    };
    type Change = Box<dyn Fn(&mut Python)>;
    let optimizer = |change: fn(&mut Python)| -> Change {
        Box::new(move |checkpoint| change(checkpoint.at("optim_state_dict")))
    };
    let cases: Vec<(Change, &str)> = vec![
        (
            optimizer(|state| {
                *state.at("state").at(1).at("exp_avg") = Python::Tensor(vec![2], vec![0.0; 2])
            }),
            "exp_avg of `transformer.layers.0.attn.qkv_proj.weight` (parameter 1): expected shape",
        ),
        (
            optimizer(|state| {
                let step = Python::Tensor(vec![], vec![3.0]);
                *state.at("state").at(9).at("step") = step;
            }),
            "`transformer.layers.0.attn.q_norm.weight` (parameter 9): expected 5 steps",
        ),
        (
            optimizer(|state| {
                *state.at("state").at(2) = Python::dict([("momentum_buffer", Python::None)]);
            }),
            "parameter 2: `momentum_buffer` is no part of AdamW's state",
        ),
        (
            optimizer(|state| *state.at("state").at(2) = Python::dict([("step", Python::Int(5))])),
            "parameter 2: expected AdamW's `step`, `exp_avg` and `exp_avg_sq`, found no `exp_avg`",
        ),
        (
            optimizer(|state| *state.at("state") = Python::dict([])),
            "`transformer.token_embeddings.weight` (parameter 0) has no state",
        ),
        (
            optimizer(|state| {
                let Python::List(groups) = state.at("param_groups") else {
                    panic!("expected a list");
                };
                groups.pop();
            }),
            "expected groups of [9, 9] parameters, or one of 18, found [9]",
        ),
        (
            optimizer(|state| *state.at("param_groups") = Python::None),
            "expected a list `param_groups`",
        ),
        (
            Box::new(|checkpoint| *checkpoint.at("iterations") = Python::None),
            "`iterations` is missing",
        ),
        (
            Box::new(|checkpoint| *checkpoint.at("iterations") = Python::Int(15)),
            "iters: expected more than 15, the iteration of the checkpoint",
        ),
        (
            Box::new(|checkpoint| {
                *checkpoint.at("model_state_dict").at("norm.weight") =
                    Python::Tensor(vec![3], vec![1.0; 3]);
            }),
            "`norm.weight`: expected shape [64], found [3]",
        ),
    ];
    for (change, expected) in cases {
        let message = refusal(&change);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}
