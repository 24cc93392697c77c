//! Single updates: documents, micro-batches, losses, dtypes and averages.

use mlx_rs::Array;
use openelm_core::{
    Dtype, Error,
    corpus::Sequence,
    internal::Batch,
    pretrain::{Pretrain, PretrainOptions},
    train::{Step, Trainer, TrainerOptions},
};
use openelm_testing::TempDir;

use crate::tiny::{
    RECIPE, batch, config, distance, documents, options, packed, source, trainer, weights,
};

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

    // Without the document boundary the loss differs.
    let mut mixed = row;
    mixed[0].document_starts.clear();
    let mut third = trainer(Dtype::Float32, RECIPE.trainer());
    let mixed = third.update(&[batch(&mixed, 100)], None).unwrap();
    assert_eq!(
        mixed.targets,
        documents.iter().map(Vec::len).sum::<usize>() - 1
    );
}

/// CoreNet's `cross_entropy.py` multiplies the logits of padding by 0, whose `logsumexp` is `ln(V)`;
/// `LossMetric` is the mean of the processes' means, weighted by their rows.
#[test]
fn losses_are_reported_as_by_corenet() {
    const LENGTH: usize = 40;
    let rows: Vec<Sequence> = documents(5)
        .into_iter()
        .map(|tokens| Sequence {
            tokens,
            document_starts: vec![0],
        })
        .collect();
    let (first, second) = rows.split_at(2);
    let batches = [first, second].map(|rows| batch(rows, 30));
    let reporting = |corenet_losses| {
        let options = TrainerOptions {
            corenet_losses,
            ..RECIPE.trainer()
        };
        trainer(Dtype::Float32, options)
    };
    let vocab_size = config().vocab_size() as f32;
    let (mut loss, mut z_loss) = (0.0, 0.0);
    for batch in &batches {
        let alone = reporting(None)
            .update(std::slice::from_ref(batch), None)
            .unwrap();
        let pads = (batch.batch * LENGTH - batch.target_count()) as f32;
        let pads = 1e-4 * vocab_size.ln().powi(2) * pads / batch.target_count() as f32;
        let share = batch.batch as f32 / 5.0;
        loss += (alone.loss + pads) * share;
        z_loss += (alone.z_loss + pads) * share;
        let one = reporting(Some(LENGTH))
            .update(std::slice::from_ref(batch), None)
            .unwrap();
        assert!(
            (one.loss - alone.loss - pads).abs() < 1e-5,
            "{one:?} {alone:?}"
        );
        assert!(
            (one.z_loss - alone.z_loss - pads).abs() < 1e-6,
            "{one:?} {alone:?}"
        );
    }
    let (mut plain, mut corenet) = (reporting(None), reporting(Some(LENGTH)));
    let expected = plain.update(&batches, None).unwrap();
    let found = corenet.update(&batches, None).unwrap();
    assert!((found.loss - loss).abs() < 1e-5, "{} {loss}", found.loss);
    assert!(
        (found.z_loss - z_loss).abs() < 1e-6,
        "{} {z_loss}",
        found.z_loss
    );
    assert!((found.loss - expected.loss).abs() > 1e-4, "{found:?}");
    // The update is the same.
    assert_eq!(found.gradient_norm, expected.gradient_norm);
    assert_eq!(weights(&plain), weights(&corenet));
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

/// The z-loss of zero logits is c·ln(V)², whatever the number of padding targets (CoreNet's
/// implementation counts them). Label smoothing leaves this loss at ln(V).
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
    // Values that bf16 cannot represent: a bf16 value has zeros in the lower half of its f32.
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
