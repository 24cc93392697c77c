//! Default dtypes.

use openelm_core::{
    Device, Dtype, Error, LanguageModel, LoadOptions,
    adapter::{Adapter, AdapterOptions},
    dataset::Example,
    finetune::{Finetune, FinetuneOptions, TrainingData},
};
use openelm_testing::TempDir;

use crate::tales_in::tales_in;

#[test]
fn default_is_16_bits_for_every_stored_dtype() {
    use Dtype::{Bfloat16, Float16, Float32};
    let _gpu = Device::Gpu.select();
    for (stored, expected) in [
        (Float32, Bfloat16),
        (Float16, Float16),
        (Bfloat16, Bfloat16),
    ] {
        let folder = tales_in(stored);
        for (training, expected) in [(false, expected), (true, Bfloat16)] {
            let options = LoadOptions {
                training,
                ..LoadOptions::default()
            };
            let model = LanguageModel::load(&folder, &options).unwrap();
            assert_eq!(model.model().dtype(), expected, "stored as {stored}");
        }
    }
}

#[test]
fn refuses_to_train_a_float16_model() {
    let folder = tales_in(Dtype::Float16);
    let _gpu = Device::Gpu.select();
    let begin = |training| {
        let options = LoadOptions {
            training,
            ..LoadOptions::default()
        };
        let model = LanguageModel::load(&folder, &options).unwrap();
        let adapter = Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
        let rows = TrainingData::Examples(vec![Example {
            tokens: vec![1, 5, 6, 7],
            first_target: 1,
        }]);
        let run = TempDir::new();
        let options = FinetuneOptions {
            batch_size: 1,
            iters: 1,
            ..FinetuneOptions::default()
        };
        let run = Finetune::new(model.model(), adapter, rows, None, &run, options)?;
        run.collect::<Result<Vec<_>, Error>>()
    };
    let error = begin(false).unwrap_err().to_string();
    assert_eq!(
        error,
        "dtype float16: gradients vanish in its range; load the model in bfloat16 to train it"
    );
    assert!(!begin(true).unwrap().is_empty());
}
