//! Interrupted runs.

use std::fs;

use openelm_core::{
    Config,
    config::{LayerWiseConfig, Preset},
    pretrain::{Pretrain, PretrainEnd, PretrainEvent, PretrainOptions},
};
use openelm_testing::TempDir;

use crate::tiny::{RECIPE, config, finish, options, source};

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
    // Cancelled after the third step, then dropped after a step without a checkpoint.
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
    let message = error.to_string();
    assert!(
        message.contains("vocab_size: expected 50, found 60"),
        "{message}"
    );
    let mut faster = options.clone();
    faster.trainer.schedule.learning_rate = 3e-3;
    let error = run(true, config(), source(40), faster).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("learning_rate: expected 0.002, found 0.003"),
        "{message}"
    );
    let error = run(true, config(), source(41), options.clone()).unwrap_err();
    assert!(error.to_string().contains("data: expected"), "{error}");
    // The checkpoint interval may change.
    let other = PretrainOptions {
        save_every: 5,
        ..options
    };
    run(true, config(), source(40), other).unwrap();
}
