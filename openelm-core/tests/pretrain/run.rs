//! Complete runs: files, ends, options and memory.

use std::fs;

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, ErrorKind, LanguageModel, memory,
    pretrain::{MemorySource, Pretrain, PretrainEnd, PretrainEvent, PretrainOptions, Recipe},
};
use openelm_testing::TempDir;

use crate::tiny::{
    RECIPE, batch, config, distance, documents, finish, options, packed, source, tensors, trainer,
};

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
    // The average lags behind the weights, and differs from a mean of a few.
    let moving = tensors(&folder.join("ema"));
    let to_last = distance(&last[2], &moving);
    assert!(to_last > 1e-4 && to_last < 0.5, "{to_last}");
    assert_ne!(moving, average);
    // The folders are models.
    Config::load(folder.join("average")).unwrap();
    let loaded = LanguageModel::load(folder.join("model"), &Default::default());
    // The model has no tokenizer.
    assert_eq!(loaded.unwrap_err().kind(), ErrorKind::MissingFile);
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
        let run = folder.join("run");
        let error = Pretrain::new(config(), source(40), None, &run, options, None);
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with(problem), "{message}");
        assert!(folder.names().is_empty());
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
    let error = run.find_map(Result::err).expect("the run must diverge");
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
    // Other tests of this process hold arrays, too; their size is about that of a leak of a tenth
    // of a step.
    let [early, late] = after[..] else { panic!() };
    let leak = 999 * 4 * config().parameter_count() as usize / 10;
    assert!(late < early + leak, "{early} then {late}");
}
