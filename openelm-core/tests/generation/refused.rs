//! Invalid prompts and options.

use openelm_core::{
    Error,
    generation::{GenerateOptions, Generation},
};

use crate::models::{Outcome, PROMPT, greedy, load, run};

#[test]
fn rejects_empty_prompts() {
    let model = load();
    let problem = |result: openelm_core::Result<Generation<'_>>, name| match result.unwrap_err() {
        Error::Option { option, problem } => {
            assert_eq!(option, name);
            problem
        }
        other => panic!("{other}"),
    };
    assert_eq!(
        problem(model.generate("", greedy(1)), "prompt"),
        "it is empty"
    );
    let of = |ids: &[u32]| Generation::new(model.model(), None, ids.to_vec(), greedy(1));
    assert_eq!(problem(of(&[]), "prompt"), "it is empty");
    for id in [2048, 1 << 31, u32::MAX] {
        assert_eq!(
            problem(of(&[1, id, 3]), "prompt"),
            format!("token {id} is not in the model's vocabulary of 2048")
        );
    }
    assert_eq!(Outcome::of(of(&[0]).unwrap()).tokens.len(), 1);
    assert_eq!(Outcome::of(of(&[2047]).unwrap()).tokens.len(), 1);
    // Any text is a valid prompt.
    for text in [
        " ",
        "\0",
        "\u{feff}",
        "🦙",
        "</s>",
        "<s>",
        "<unk>",
        "\u{202e}\r\n",
        "▁",
    ] {
        assert_eq!(run(&model, text, greedy(2)).tokens.len(), 2, "{text:?}");
    }
}

#[test]
fn rejects_options_out_of_range() {
    let model = load();
    let refused = |name: &str, change: &dyn Fn(&mut GenerateOptions)| {
        let mut options = greedy(1);
        change(&mut options);
        let error = model.generate(PROMPT, options.clone()).unwrap_err();
        assert!(
            matches!(error, Error::Option { option, .. } if option == name),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("{name}: expected ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    };
    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;
    for value in [NAN, -NAN, -0.1, INFINITY, -INFINITY, f32::MIN] {
        refused("temperature", &|o| o.sampling.temperature = value);
    }
    for value in [NAN, 0.0, -0.0, -0.5, 1.5, INFINITY, -INFINITY] {
        refused("top_p", &|o| o.sampling.top_p = value);
    }
    for value in [NAN, -0.1, 1.1, INFINITY, -INFINITY] {
        refused("min_p", &|o| o.sampling.min_p = value);
    }
    for value in [NAN, 0.0, -0.0, -1.0, INFINITY, -INFINITY] {
        refused("repetition_penalty", &|o| {
            o.sampling.repetition_penalty = value
        });
    }
    for value in [NAN, INFINITY, -INFINITY] {
        refused("presence_penalty", &|o| o.sampling.presence_penalty = value);
        refused("frequency_penalty", &|o| {
            o.sampling.frequency_penalty = value
        });
        refused("typical_p", &|o| o.sampling.typical_p = value);
        refused("top_n_sigma", &|o| o.sampling.top_n_sigma = value);
        refused("xtc_probability", &|o| o.sampling.xtc_probability = value);
        refused("xtc_threshold", &|o| o.sampling.xtc_threshold = value);
        refused("dry_multiplier", &|o| o.sampling.dry_multiplier = value);
        refused("dry_base", &|o| o.sampling.dry_base = value);
    }
    for value in [NAN, INFINITY] {
        refused("logit_bias", &|o| {
            o.sampling.logit_bias = [(1, value)].into()
        });
    }
    refused("repetition_context_size", &|o| {
        o.sampling.repetition_context_size = Some(0)
    });
    refused("presence_context_size", &|o| {
        o.sampling.presence_context_size = 0
    });
    refused("banned_strings", &|o| {
        o.sampling.banned_strings = vec![String::new()]
    });
    for value in [2049, usize::MAX] {
        refused("logprobs", &|o| o.logprobs = value);
    }
    refused("prefill_chunk", &|o| o.prefill_chunk = Some(0));
}
