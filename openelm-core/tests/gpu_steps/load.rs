//! Loading, its memory, and warming up.

use std::{cell::Cell, rc::Rc};

use openelm_core::{
    Device, Dtype, Error, LanguageModel, LoadOptions, Result,
    generation::GenerateOptions,
    internal::{Evaluations, Gate, assume_available},
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
fn warm_up_rests_at_a_closed_gate_after_each_event() {
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let gate = Gate::default();
    gate.close();
    let rests = Rc::new(Cell::new(0));
    let counted = Rc::clone(&rests);
    let give_up = move || {
        counted.set(counted.get() + 1);
        true
    };
    gate.attach(give_up, || ());
    model.warm_up().unwrap();
    assert_eq!(rests.get(), 5, "two chunks, two tokens, the end");
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

#[test]
fn refuses_a_model_that_does_not_fit_into_memory() {
    let load = |device: Device, dtype, available| -> Result<()> {
        let _device = device.select();
        let _available = assume_available(available);
        let options = LoadOptions {
            dtype,
            // On a CPU the stored matrices would need no memory.
            keep_quantized: (device == Device::Cpu).then_some(false),
            ..LoadOptions::default()
        };
        LanguageModel::load(tales(), &options).map(drop)
    };
    let weights = 2 * 2_497_344;
    for (device, dtype, least) in [
        (Device::Gpu, None, weights),
        (Device::Gpu, Some(Dtype::Float32), 2 * weights),
        (Device::Cpu, None, 2 * weights),
        (Device::Cpu, Some(Dtype::Float16), weights),
    ] {
        let error = load(device, dtype, Some(least)).unwrap_err();
        let Error::Memory {
            part,
            needed,
            available,
        } = error
        else {
            panic!("{error}");
        };
        assert!(part.contains("tales: the model in "), "{part}");
        assert_eq!(available, least);
        // A short text needs little more than the weights.
        assert!(needed > least && needed < least + 9_000_000, "{needed}");
        load(device, dtype, Some(needed)).unwrap();
        load(device, dtype, Some(needed - 1)).unwrap_err();
        load(device, dtype, None).unwrap();
    }
    // Mapped weights allocate nothing.
    load(Device::Cpu, Some(Dtype::Bfloat16), Some(weights / 2)).unwrap();
}
