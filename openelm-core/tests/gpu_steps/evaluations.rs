//! Evaluations of a generation.

use openelm_core::{
    Device, LanguageModel, LoadOptions,
    generation::{Event, GenerateOptions, Sampling},
    internal::Evaluations,
};
use openelm_testing::tales;

#[test]
fn a_token_is_one_evaluation_and_its_reading_makes_no_operation() {
    for device in [Device::Cpu, Device::Gpu] {
        let _device = device.select();
        let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
        for (logprobs, temperature, repetition_penalty) in [(0, 0.0, 1.0), (3, 0.8, 1.2)] {
            let options = GenerateOptions {
                max_tokens: 20,
                logprobs,
                ignore_eos: true,
                sampling: Sampling {
                    temperature,
                    repetition_penalty,
                    top_p: 0.9,
                    seed: Some(1),
                    ..Sampling::default()
                },
                ..GenerateOptions::default()
            };
            let before = Evaluations::of_thread();
            let mut tokens = 0;
            for event in model.generate("Once upon a time", options).unwrap() {
                if let Event::Token(token) = event.unwrap() {
                    tokens += 1;
                    assert_eq!(token.top_logprobs.len(), logprobs);
                    assert_eq!(token.logprob.is_some(), logprobs > 0);
                }
            }
            let expected = Evaluations {
                started: 20,
                late: 0,
            };
            assert_eq!(tokens, 20);
            assert_eq!(Evaluations::since(before), expected, "{device}, {logprobs}");
        }
    }
}
