//! Work in which the device fails: a load, a step of a trainer, a generation.

use openelm_testing::{TempDir, tales};
use serde_json::Value;

use super::{Trainer, TrainerOptions};
use crate::{
    adapter::{Adapter, AdapterOptions},
    data::{
        batch::{Batch, Padding},
        dataset::Example,
    },
    error::{Error, ErrorKind, Result},
    generation::{GenerateOptions, LanguageModel, LoadOptions},
    mlx::recovery::faults,
};

fn model() -> LanguageModel {
    LanguageModel::load(tales(), &LoadOptions::default()).unwrap()
}

#[test]
fn failed_trainer_neither_trains_nor_saves() {
    let model = model();
    let example = Example {
        tokens: vec![1, 5, 6, 7, 8],
        first_target: 1,
    };
    let batch = Batch::new(&[&example], Padding::default());
    let adapter = || Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
    let folder = TempDir::new();
    let state = folder.join("state.safetensors");
    let works: [fn(&mut Trainer, &Batch) -> Result<()>; 2] = [
        |trainer, batch| trainer.step(batch).map(drop),
        |trainer, batch| trainer.update(std::slice::from_ref(batch), None).map(drop),
    ];
    for work in works {
        let options = TrainerOptions::default();
        let mut trainer = Trainer::new(model.model(), adapter(), options).unwrap();
        work(&mut trainer, &batch).unwrap();
        faults::inject(2);
        let error = work(&mut trainer, &batch).unwrap_err();
        assert!(matches!(error, Error::Mlx(_)), "{error}");
        for error in [
            work(&mut trainer, &batch).unwrap_err(),
            trainer.evaluate([&batch]).map(drop).unwrap_err(),
            trainer.log_probabilities(&batch).map(drop).unwrap_err(),
            trainer.save_state(&state, &Value::Null).unwrap_err(),
        ] {
            assert!(matches!(error, Error::FailedTrainer { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Device);
        }
        assert!(folder.names().is_empty());
        // The failure is the trainer's alone.
        let mut other = Trainer::new(model.model(), adapter(), TrainerOptions::default()).unwrap();
        work(&mut other, &batch).unwrap();
    }
}

#[test]
fn load_after_a_failed_one_succeeds() {
    faults::inject(2);
    let failed = LanguageModel::load(tales(), &LoadOptions::default());
    assert!(matches!(failed, Err(Error::Mlx(_))), "{failed:?}");
    model();
}

#[test]
fn generation_after_a_failed_one_is_as_before() {
    let model = model();
    let text = || {
        let options = GenerateOptions {
            max_tokens: 8,
            ..GenerateOptions::default()
        };
        let mut generation = model.generate("A fox", options).unwrap();
        for event in generation.by_ref() {
            event?;
        }
        Ok::<_, Error>(generation.text().to_owned())
    };
    let expected = text().unwrap();
    for reports in [1, 2, 3] {
        faults::inject(reports);
        assert!(matches!(text(), Err(Error::Mlx(_))));
        assert_eq!(text().unwrap(), expected);
    }
}
