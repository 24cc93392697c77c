//! Pre-training of tiny models: documents kept apart, updates in parts, averages, resume, 16 bits.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{fs, path::Path};

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, LanguageModel,
    config::{LayerWiseConfig, Preset},
    corpus::Sequence,
    internal::{Batch, random_weights},
    memory,
    pretrain::{MemorySource, Pretrain, PretrainEnd, PretrainEvent, PretrainOptions, Recipe},
    train::{Step, Trainer, TrainerOptions},
};
use openelm_testing::TempDir;

fn config() -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        max_context_length: 64,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

fn trainer(dtype: Dtype, options: TrainerOptions) -> Trainer {
    let start = random_weights(&config(), Dtype::Float32, 3).unwrap();
    Trainer::from_scratch(config(), start, dtype, options).unwrap()
}

/// A tensor's name and numbers.
type Named = (String, Vec<f32>);

const RECIPE: Recipe = Recipe {
    iters: 12,
    learning_rate: 2e-3,
    warmup: 3,
};

/// Some documents of different lengths, BOS and EOS around them, no two alike.
fn documents(count: u32) -> Vec<Vec<u32>> {
    let text = |i: u32| (0..3 + i % 5).map(move |j| 3 + (7 * i + 11 * j) % 47);
    let document = |i| [1].into_iter().chain(text(i)).chain([2]).collect();
    (0..count).map(document).collect()
}

/// They one after another, in rows of `length` tokens and a last target.
fn packed(documents: &[Vec<u32>], length: usize) -> Vec<Sequence> {
    let mut starts = Vec::new();
    let mut stream = Vec::new();
    for document in documents {
        starts.push(stream.len());
        stream.extend(document);
    }
    let rows = (0..stream.len() - 1).step_by(length).map(|from| {
        let to = stream.len().min(from + length + 1);
        let within = starts.iter().filter(|start| (from..to).contains(start));
        Sequence {
            tokens: stream[from..to].to_vec(),
            document_starts: within.map(|start| start - from).collect(),
        }
    });
    rows.collect()
}

fn batch(sequences: &[Sequence], length: usize) -> Batch {
    let rows: Vec<(&[u32], &[usize])> = sequences
        .iter()
        .map(|s| (&s.tokens[..], &s.document_starts[..]))
        .collect();
    Batch::packed(&rows, length)
}
/// Weights by name, of a trainer that was asked for them.
fn weights(trainer: &Trainer) -> Vec<Named> {
    let folder = TempDir::new();
    trainer.adapter().save(&folder, &config()).unwrap();
    let read = Array::load_safetensors(folder.join("adapters.safetensors")).unwrap();
    let mut read: Vec<Named> = read
        .into_iter()
        .map(|(name, array)| (name, array.to_vec_exact::<f32>().unwrap()))
        .collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}

/// The largest distance of two sets of weights, relative to a tensor's length.
fn distance(a: &[Named], b: &[Named]) -> f64 {
    assert_eq!(a.len(), b.len());
    let of = |((name, a), (other, b)): (&Named, &Named)| {
        assert_eq!(name, other);
        let square = |x: f64| x * x;
        let length: f64 = a.iter().map(|&x| square(x.into())).sum();
        let off = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| square(f64::from(a) - f64::from(b)));
        (off.sum::<f64>() / length).sqrt()
    };
    a.iter().zip(b).map(of).fold(0.0, f64::max)
}

#[test]
fn packed_documents_train_like_separate_rows() {
    let documents = documents(9);
    let row = packed(&documents, 100);
    assert_eq!(row.len(), 1);
    let alone: Vec<Sequence> = documents
        .iter()
        .map(|document| Sequence {
            tokens: document.clone(),
            document_starts: vec![0],
        })
        .collect();
    let mut together = trainer(Dtype::Float32, RECIPE.trainer());
    let mut apart = trainer(Dtype::Float32, RECIPE.trainer());
    for _ in 0..4 {
        let one = together.update(&[batch(&row, 100)], None).unwrap();
        let other = apart.update(&[batch(&alone, 10)], None).unwrap();
        assert_eq!(one.targets, other.targets);
        assert!(
            (one.loss - other.loss).abs() < 1e-5,
            "{} {}",
            one.loss,
            other.loss
        );
    }
    let off = distance(&weights(&together), &weights(&apart));
    assert!(off < 1e-4, "{off:e}");

    // Without the border between them they are another text.
    let mut mixed = row;
    mixed[0].document_starts.clear();
    let mut third = trainer(Dtype::Float32, RECIPE.trainer());
    let mixed = third.update(&[batch(&mixed, 100)], None).unwrap();
    assert_eq!(
        mixed.targets,
        documents.iter().map(Vec::len).sum::<usize>() - 1
    );
}

#[test]
fn update_does_not_depend_on_micro_batches() {
    let rows = packed(&documents(40), 24);
    let run = |parts: usize, checkpoint: bool| {
        let options = TrainerOptions {
            grad_checkpoint: checkpoint,
            ..RECIPE.trainer()
        };
        let mut trainer = trainer(Dtype::Float32, options);
        let steps: Vec<Step> = (0..4)
            .map(|i| {
                let rows = &rows[i * 2..i * 2 + 4];
                let batches: Vec<Batch> = rows.chunks(parts).map(|r| batch(r, 24)).collect();
                trainer.update(&batches, None).unwrap()
            })
            .collect();
        (steps, weights(&trainer))
    };
    let (steps, whole) = run(4, false);
    assert!(steps.iter().all(|step| step.gradient_norm.unwrap() > 0.0));
    for (parts, checkpoint) in [(1, false), (3, false), (4, true), (1, true)] {
        let (divided, parted) = run(parts, checkpoint);
        for (a, b) in steps.iter().zip(&divided) {
            assert_eq!((a.iteration, a.targets), (b.iteration, b.targets));
            assert!(
                (a.loss - b.loss).abs() < 1e-5,
                "{parts}: {} {}",
                a.loss,
                b.loss
            );
            assert!((a.z_loss - b.z_loss).abs() < 1e-7);
        }
        let off = distance(&whole, &parted);
        assert!(off < 1e-4, "{parts}: {off:e}");
    }
}

/// The z-loss of logits that are all zero is c·ln(V)², however many targets are pads (CoreNet's own
/// counts them, T18 of its sheet); label smoothing leaves such a loss at ln(V).
#[test]
fn z_loss_and_smoothing_of_zero_logits() {
    let mut start = std::collections::HashMap::new();
    for (name, shape) in config().tensors() {
        let shape: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
        start.insert(name, mlx_rs::ops::zeros::<f32>(&shape).unwrap());
    }
    let options = TrainerOptions {
        z_loss: 0.5,
        label_smoothing: 0.25,
        ..RECIPE.trainer()
    };
    let start = openelm_core::internal::Weights::from_tensors(start);
    let mut trainer = Trainer::from_scratch(config(), start, Dtype::Float32, options).unwrap();
    let row = Sequence {
        tokens: vec![1, 5, 6, 2],
        document_starts: vec![0],
    };
    let step = trainer.update(&[batch(&[row], 30)], None).unwrap();
    assert_eq!(step.targets, 3);
    // ln 50 = 3.912023; half its square is 7.651962.
    assert!((step.z_loss - 7.651_962).abs() < 1e-5, "{}", step.z_loss);
    assert!(
        (step.loss - step.z_loss - 3.912_023).abs() < 1e-5,
        "{}",
        step.loss
    );
}

#[test]
fn computes_in_16_bits_and_keeps_32() {
    let rows = packed(&documents(40), 24);
    let mut exact = trainer(Dtype::Float32, RECIPE.trainer());
    let mut half = trainer(Dtype::Bfloat16, RECIPE.trainer());
    for i in 0..6 {
        let batches = [batch(&rows[i..i + 3], 24)];
        let (a, b) = (
            exact.update(&batches, None).unwrap(),
            half.update(&batches, None).unwrap(),
        );
        assert!((a.loss - b.loss).abs() < 0.03, "{} {}", a.loss, b.loss);
    }
    let (exact, half) = (weights(&exact), weights(&half));
    let off = distance(&exact, &half);
    assert!(off > 1e-6 && off < 0.05, "{off:e}");
    // Numbers that bf16 cannot hold: its 8 bits leave the low half of an f32 empty.
    let fine = half.iter().flat_map(|(_, values)| values);
    let fine = fine.filter(|value| value.to_bits() & 0xffff != 0).count();
    assert!(fine > 10_000, "{fine}");
    let folder = TempDir::new();
    let options = PretrainOptions {
        dtype: Some(Dtype::Float16),
        ..options(&RECIPE)
    };
    let error = Pretrain::new(config(), source(8), None, &folder, options, None).unwrap_err();
    assert!(matches!(error, Error::Dtype { .. }), "{error}");
}

fn options(recipe: &Recipe) -> PretrainOptions {
    PretrainOptions {
        batch_size: 4,
        micro_batch_size: 2,
        save_every: 2,
        keep_checkpoints: 3,
        average_last: Some(3),
        ..PretrainOptions::new(*recipe)
    }
}

fn source(documents: u32) -> Box<MemorySource> {
    let rows = packed(&self::documents(documents), 24);
    Box::new(MemorySource::new(rows, (0, 1)))
}

fn finish(run: &mut Pretrain) -> Vec<PretrainEvent> {
    run.map(Result::unwrap).collect()
}

fn tensors(folder: &Path) -> Vec<Named> {
    let read = Array::load_safetensors(folder.join("model.safetensors")).unwrap();
    let mut read: Vec<Named> = read
        .into_iter()
        .map(|(name, array)| (name, array.to_vec_exact::<f32>().unwrap()))
        .collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}

#[test]
fn run_writes_model_average_and_ema() {
    let folder = TempDir::new();
    let mut options = options(&RECIPE);
    options.trainer.ema_decay = Some(0.75);
    let mut run = Pretrain::new(config(), source(40), None, &folder, options, None).unwrap();
    let events = finish(&mut run);
    let steps = |event: &PretrainEvent| matches!(event, PretrainEvent::Step { .. });
    assert_eq!(events.iter().filter(|event| steps(event)).count(), 12);
    assert!(matches!(
        events.last(),
        Some(PretrainEvent::Finished {
            iteration: 12,
            reason: PretrainEnd::Steps,
            ..
        })
    ));
    let kept = |step: u64| folder.join(format!("checkpoints/step-{step:06}"));
    let names = fs::read_dir(folder.join("checkpoints")).unwrap().count();
    assert_eq!(names, 3, "only the last three are kept");
    let last = [8, 10, 12].map(|step| tensors(&kept(step)));
    assert_eq!(tensors(&folder.join("model")), last[2]);

    let average = tensors(&folder.join("average"));
    for (i, (name, values)) in average.iter().enumerate() {
        for (j, &value) in values.iter().enumerate() {
            let mean = last
                .iter()
                .map(|weights| f64::from(weights[i].1[j]))
                .sum::<f64>()
                / 3.0;
            assert_eq!(value, mean as f32, "{name}");
        }
    }
    // It lags behind the weights, and is no average of few.
    let moving = tensors(&folder.join("ema"));
    let to_last = distance(&last[2], &moving);
    assert!(to_last > 1e-4 && to_last < 0.5, "{to_last}");
    assert_ne!(moving, average);
    // The folders are models.
    Config::load(folder.join("average")).unwrap();
    let loaded = LanguageModel::load(folder.join("model"), &Default::default());
    assert!(
        matches!(loaded, Err(Error::MissingFile { .. })),
        "it has no tokenizer"
    );
}

#[test]
fn moving_average_follows_its_formula() {
    let options = TrainerOptions {
        ema_decay: Some(0.5),
        ..RECIPE.trainer()
    };
    let rows = packed(&documents(40), 24);
    let folder = TempDir::new();
    let mut trainer = trainer(Dtype::Float32, options);
    let start = weights(&trainer);
    let mut expected: Vec<Vec<f64>> = start
        .iter()
        .map(|(_, values)| values.iter().map(|&v| v.into()).collect())
        .collect();
    for i in 0..3 {
        trainer.update(&[batch(&rows[i..i + 2], 24)], None).unwrap();
        for (average, (_, values)) in expected.iter_mut().zip(weights(&trainer)) {
            for (average, value) in average.iter_mut().zip(values) {
                *average = 0.5 * *average + 0.5 * f64::from(value);
            }
        }
    }
    let state = folder.join("state.safetensors");
    trainer
        .save_state(&state, &serde_json::Value::Null)
        .unwrap();
    let saved = Array::load_safetensors(&state).unwrap();
    for ((name, _), expected) in start.iter().zip(&expected) {
        let found = saved[&format!("average:{name}")]
            .to_vec_exact::<f32>()
            .unwrap();
        for (&found, &expected) in found.iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{name}");
        }
    }
}

#[test]
fn interrupted_run_gives_identical_files() {
    let (whole, parts) = (TempDir::new(), TempDir::new());
    let mut options = options(&RECIPE);
    options.trainer.ema_decay = Some(0.9);
    let begin = |folder: &TempDir, resume: bool| {
        let begin = if resume {
            Pretrain::resume
        } else {
            Pretrain::new
        };
        begin(config(), source(40), None, &folder, options.clone(), None).unwrap()
    };
    finish(&mut begin(&whole, false));
    // Stopped by cancelling after the third step, then dropped after a step that was not saved.
    let mut run = begin(&parts, false);
    run.by_ref().take(3).for_each(drop);
    run.cancel_handle().cancel();
    let events = finish(&mut run);
    assert!(matches!(
        events.last(),
        Some(PretrainEvent::Finished {
            reason: PretrainEnd::Cancelled,
            ..
        })
    ));
    let mut run = begin(&parts, true);
    run.by_ref().take(4).for_each(drop);
    drop(run);
    finish(&mut begin(&parts, true));
    for file in [
        "training_state.safetensors",
        "model/model.safetensors",
        "ema/model.safetensors",
        "checkpoints/step-000012/model.safetensors",
    ] {
        let read = |folder: &TempDir| fs::read(folder.join(file)).unwrap();
        assert_eq!(read(&whole), read(&parts), "{file}");
    }
}

#[test]
fn resume_rejects_another_run() {
    let folder = TempDir::new();
    let options = options(&RECIPE);
    let run = |resume: bool, config: Config, source, options| {
        let begin = if resume {
            Pretrain::resume
        } else {
            Pretrain::new
        };
        begin(config, source, None, &folder, options, None)
    };
    let error = run(true, config(), source(40), options.clone()).unwrap_err();
    assert!(
        error.to_string().contains("there is no run to resume"),
        "{error}"
    );
    finish(&mut run(false, config(), source(40), options.clone()).unwrap());

    let error = run(false, config(), source(40), options.clone()).unwrap_err();
    assert!(
        error.to_string().contains("there is a run here already"),
        "{error}"
    );
    let wider = Config::layer_wise(LayerWiseConfig {
        vocab_size: 60,
        ..LayerWiseConfig {
            num_transformer_layers: 2,
            model_dim: 64,
            head_dim: 16,
            max_context_length: 64,
            ..Preset::Size270M.settings()
        }
    });
    let error = run(true, wider.unwrap(), source(40), options.clone()).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("vocab_size: expected 50, found 60"), "{told}");
    let mut faster = options.clone();
    faster.trainer.schedule.learning_rate = 3e-3;
    let error = run(true, config(), source(40), faster).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("learning_rate: expected 0.002, found 0.003"),
        "{told}"
    );
    let error = run(true, config(), source(41), options.clone()).unwrap_err();
    assert!(error.to_string().contains("data: expected"), "{error}");
    // How often it saves is nobody's affair.
    let other = PretrainOptions {
        save_every: 5,
        ..options
    };
    run(true, config(), source(40), other).unwrap();
}

#[test]
fn run_ends_with_its_data() {
    let folder = TempDir::new();
    let rows = packed(&documents(40), 24);
    let enough = rows.len() as u64 / 4;
    assert!(enough > 2 && enough < RECIPE.iters);
    let source = Box::new(MemorySource::new(rows, (0, 1)).epochs(1));
    let mut run = Pretrain::new(config(), source, None, &folder, options(&RECIPE), None).unwrap();
    let events = finish(&mut run);
    let Some(PretrainEvent::Finished {
        iteration, reason, ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!((*iteration, *reason), (enough, PretrainEnd::Data));
    assert!(folder.join("model/model.safetensors").is_file());
}

#[test]
fn rejects_options_out_of_range() {
    type Spoil = fn(&mut PretrainOptions);
    let cases: [(Spoil, &str); 8] = [
        (
            |o| o.batch_size = 0,
            "batch_size: expected at least 1, found 0",
        ),
        (
            |o| o.micro_batch_size = 0,
            "micro_batch_size: expected at least 1",
        ),
        (|o| o.iters = 0, "iters: expected at least 1, found 0"),
        (
            |o| o.save_every = 0,
            "save_every: expected at least 1, found 0",
        ),
        (
            |o| o.average_last = Some(4),
            "average_last: expected at most 3",
        ),
        (
            |o| o.trainer.z_loss = -1.0,
            "z_loss: expected 0 or more, found -1",
        ),
        (
            |o| o.trainer.label_smoothing = 1.0,
            "label_smoothing: expected 0 or more and below 1",
        ),
        (
            |o| o.trainer.ema_decay = Some(1.5),
            "ema_decay: expected 0 or more and below 1",
        ),
    ];
    for (spoil, problem) in cases {
        let folder = TempDir::new();
        let mut options = options(&RECIPE);
        spoil(&mut options);
        let error = Pretrain::new(config(), source(40), None, &folder, options, None);
        let told = error.unwrap_err().to_string();
        assert!(told.starts_with(problem), "{told}");
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 0, "nothing was begun");
    }
}

#[test]
fn diverged_run_is_reported_and_not_saved() {
    let folder = TempDir::new();
    let recipe = Recipe {
        learning_rate: 1e30,
        ..RECIPE
    };
    let mut run =
        Pretrain::new(config(), source(40), None, &folder, options(&recipe), None).unwrap();
    let error = run.find_map(Result::err).expect("it cannot go well");
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    let state = folder.join("training_state.safetensors");
    if state.exists() {
        let saved = Array::load_safetensors(&state).unwrap();
        let whole = |array: &Array| {
            let values = array.to_vec_exact::<f32>().unwrap();
            values.iter().all(|value| value.is_finite())
        };
        assert!(saved.iter().all(|(_, array)| whole(array)));
    }
}

#[test]
fn memory_is_constant_over_1000_steps() {
    let mut trainer = trainer(Dtype::Float32, RECIPE.trainer());
    let rows = packed(&documents(200), 24);
    let mut after = Vec::new();
    for step in 0..1020 {
        let from = step % (rows.len() - 4);
        trainer
            .update(&[batch(&rows[from..from + 4], 24)], None)
            .unwrap();
        if step == 20 || step == 1019 {
            after.push(memory::active_bytes().unwrap());
        }
    }
    // Other tests of this process have arrays, too: as many as a leak of a tenth of a step's would have.
    let [early, late] = after[..] else { panic!() };
    let leak = 999 * 4 * config().parameter_count() as usize / 10;
    assert!(late < early + leak, "{early} then {late}");
}
