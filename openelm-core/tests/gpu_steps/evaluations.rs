//! Evaluations of a generation.

use openelm_core::{
    Device, LanguageModel, LoadOptions,
    generation::{Event, GenerateOptions, LogprobsOf, Sampling},
    internal::Evaluations,
};
use openelm_testing::tales;

#[test]
fn a_token_is_one_evaluation_and_its_reading_makes_no_operation() {
    for device in [Device::Cpu, Device::Gpu] {
        let _device = device.select();
        let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
        let sampled = Sampling {
            temperature: 0.8,
            repetition_penalty: 1.2,
            top_p: 0.9,
            seed: Some(1),
            ..Sampling::default()
        };
        // Exclusions, a window of the history, and filters.
        let excluding = Sampling {
            logit_bias: [(5, f32::NEG_INFINITY)].into(),
            min_tokens: 30,
            frequency_penalty: 0.5,
            banned_strings: vec!["castle".into()],
            typical_p: 0.99,
            xtc_probability: 0.1,
            ..sampled.clone()
        };
        // With a window, the pass of a token starts before the token is chosen on the host.
        for (logprobs, logprobs_of, sampling, started) in [
            (0, LogprobsOf::Model, Sampling::default(), 20),
            (3, LogprobsOf::Model, sampled, 20),
            (1, LogprobsOf::Sampler, excluding, 39),
        ] {
            let options = GenerateOptions {
                max_tokens: 20,
                logprobs,
                logprobs_of,
                ignore_eos: true,
                sampling,
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
            let expected = Evaluations { started, late: 0 };
            assert_eq!(tokens, 20);
            assert_eq!(Evaluations::since(before), expected, "{device}, {logprobs}");
        }
    }
}
