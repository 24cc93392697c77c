//! Loading and warming up.

use openelm_core::{
    Device, LanguageModel, LoadOptions, generation::GenerateOptions, internal::Evaluations,
};
use openelm_testing::tales;

fn text(model: &LanguageModel) -> String {
    let options = GenerateOptions {
        max_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut generation = model.generate("Once upon a time", options).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    generation.text().to_owned()
}

#[test]
fn warm_up_runs_both_chunks_and_does_not_change_the_text() {
    for device in [Device::Cpu, Device::Gpu] {
        let _device = device.select();
        let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
        let expected = text(&model);
        model.warm_up().unwrap();
        assert_eq!(text(&model), expected, "{device}");
    }
}

#[test]
fn derived_weights_of_all_layers_are_one_evaluation() {
    let _gpu = Device::Gpu.select();
    let before = Evaluations::of_thread();
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let expected = Evaluations {
        started: 1,
        late: 0,
    };
    assert_eq!(Evaluations::since(before), expected);
    drop(model);
}
