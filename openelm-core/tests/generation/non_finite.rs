//! Weights, adapters and data types whose logits are not finite.

use openelm_core::{
    Dtype, Error, ErrorKind, LanguageModel, LoadOptions,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    chat::Chat,
    generation::{Event, GenerateOptions, Generation, LogprobsOf, PromptCache, Sampling},
    tokenizer::ChatTemplate,
};
use openelm_testing::{TempDir, write_tales};

use crate::models::{PROMPT, greedy, load, load_as, run, warm};

const EMBEDDING: &str = "transformer.token_embeddings.weight";

/// The tales model with numbers replaced.
fn changed(changes: &[(&str, usize, f32)], dtype: Dtype) -> LanguageModel {
    let folder = TempDir::new();
    write_tales(&folder, changes);
    let options = LoadOptions {
        dtype: Some(dtype),
        ..LoadOptions::default()
    };
    LanguageModel::load(&folder, &options).unwrap()
}

/// The error of a generation, and the number of tokens before it.
fn failure(generation: Generation<'_>) -> (Error, usize) {
    let mut generation = generation;
    let mut tokens = 0;
    let error = loop {
        match generation.next().expect("an error") {
            Err(error) => break error,
            Ok(Event::Token(_)) => tokens += 1,
            Ok(Event::Prefill { .. }) => {}
            Ok(event @ Event::Finished { .. }) => panic!("{event:?}"),
        }
    };
    assert!(generation.next().is_none(), "{error}");
    assert_eq!(generation.into_cache().offset(), 0, "{error}");
    (error, tokens)
}

fn first_error(model: &LanguageModel, options: GenerateOptions) -> Error {
    let (error, tokens) = failure(model.generate(PROMPT, options).unwrap());
    assert_eq!(tokens, 0, "{error}");
    error
}

#[test]
fn names_the_first_layer_and_its_tensor() {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    for (tensor, index, value, place, reason) in [
        (
            "transformer.layers.2.ffn.proj_2.weight",
            70,
            nan,
            "layer 2",
            "holds NaN",
        ),
        (
            "transformer.layers.0.ffn.proj_1.weight",
            5,
            infinity,
            "layer 0",
            "holds infinity",
        ),
        (
            "transformer.layers.3.attn_norm.weight",
            1,
            -infinity,
            "layer 3",
            "holds infinity",
        ),
        (
            "transformer.layers.1.attn.q_norm.weight",
            0,
            nan,
            "layer 1",
            "holds NaN",
        ),
        (
            "transformer.layers.1.attn.k_norm.weight",
            3,
            nan,
            "layer 1",
            "holds NaN",
        ),
        (
            "transformer.layers.5.attn.qkv_proj.weight",
            8,
            nan,
            "layer 5",
            "holds NaN",
        ),
        (
            "transformer.norm.weight",
            9,
            nan,
            "the final norm",
            "holds NaN",
        ),
        // The row of BOS, and the row of a token that is not in the prompt.
        (EMBEDDING, 192, infinity, "the embedding", "holds infinity"),
        (EMBEDDING, 192 * 2000, nan, "the head", "holds NaN"),
        (
            EMBEDDING,
            192 * 2000 + 3,
            infinity,
            "the head",
            "holds infinity",
        ),
    ] {
        let model = changed(&[(tensor, index, value)], Dtype::Float32);
        let expected = format!("{place} computes NaN or infinity: tensor `{tensor}` {reason}");
        let penalised = Sampling {
            repetition_penalty: 1.2,
            top_p: 0.9,
            ..warm(3)
        };
        let sampled = GenerateOptions {
            sampling: penalised,
            logprobs: 2,
            prefill_chunk: Some(2),
            ..greedy(4)
        };
        let all = Sampling {
            typical_p: 0.9,
            top_n_sigma: 2.0,
            xtc_probability: 1.0,
            frequency_penalty: 0.5,
            dry_multiplier: 1.0,
            logit_bias: [(5, f32::NEG_INFINITY)].into(),
            min_tokens: 2,
            banned_strings: vec!["the".into()],
            ..warm(3)
        };
        let all = GenerateOptions {
            sampling: all,
            logprobs: 2,
            logprobs_of: LogprobsOf::Sampler,
            ..greedy(4)
        };
        let forced = GenerateOptions {
            sampling: Sampling {
                forced_prefix: " there".into(),
                ..Sampling::default()
            },
            ..greedy(4)
        };
        for options in [greedy(4), sampled, all, forced] {
            let error = first_error(&model, options);
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.kind(), ErrorKind::InvalidCheckpoint);
        }
    }
}

#[test]
fn names_the_layer_whose_finite_weights_overflow() {
    // A residual whose square overflows makes the next norm, and all logits, zero.
    for value in [1e25_f32, 1e38] {
        let tensor = "transformer.layers.4.ffn.proj_2.weight";
        let error = first_error(&changed(&[(tensor, 0, value)], Dtype::Float32), greedy(4));
        assert_eq!(
            error.to_string(),
            "layer 4 computes NaN or infinity: its weights are finite, and its output exceeds \
             float32"
        );
    }
}

#[test]
fn float16_overflow_names_other_dtypes() {
    let large = [("transformer.layers.1.attn_norm.weight", 0, 6e5)];
    let wide = [
        "transformer.layers.2.ffn_norm.weight",
        "transformer.layers.2.attn_norm.weight",
    ];
    let wide: Vec<_> = wide
        .iter()
        .flat_map(|&name| (0..192).map(move |i| (name, i, 6e4)))
        .collect();
    for (changes, expected) in [
        (
            &large[..],
            "dtype float16: tensor `transformer.layers.1.attn_norm.weight` exceeds its range \
             (65504); use bfloat16 or float32",
        ),
        (
            &wide,
            "dtype float16: the output of layer 2 exceeds its range (65504); use bfloat16 or \
             float32",
        ),
    ] {
        let error = first_error(&changed(changes, Dtype::Float16), greedy(4));
        assert_eq!(error.to_string(), expected);
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            assert_eq!(
                run(&changed(changes, dtype), PROMPT, greedy(4))
                    .tokens
                    .len(),
                4
            );
        }
    }
}

fn adapter(model: &LanguageModel, keys: Keys, seed: u64) -> Adapter {
    let targets = TargetModules {
        num_layers: None,
        keys,
    };
    Adapter::lora(model.model(), &targets, &LoraOptions::default(), seed).unwrap()
}

/// `adapter` with each number of the tensors that end with `part` mapped by `change`.
fn with(
    adapter: &Adapter,
    model: &LanguageModel,
    part: &str,
    change: impl Fn(usize) -> Option<f32>,
) -> Adapter {
    let folder = TempDir::new();
    adapter.save(&folder, model.model().config()).unwrap();
    let path = folder.join("adapters.safetensors");
    let tensors = mlx_rs::Array::load_safetensors(&path).unwrap();
    let tensors: Vec<_> = tensors
        .into_iter()
        .map(|(name, array)| {
            let mut values = array.to_vec_exact::<f32>().unwrap();
            if name.ends_with(part) {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = change(i).unwrap_or(*value);
                }
            }
            (name, mlx_rs::Array::from_slice(&values, array.shape()))
        })
        .collect();
    let tensors = tensors.iter().map(|(name, array)| (name.as_str(), array));
    mlx_rs::Array::save_safetensors(tensors, None, &path).unwrap();
    Adapter::load(&folder).unwrap()
}

#[test]
fn names_an_adapter_and_its_strength() {
    let mut model = load();
    let plain = adapter(&model, Keys::Names(vec!["proj_2".into()]), 1);
    let stirred = with(&plain, &model, "lora_b", |i| Some(0.01 * (i % 7) as f32));
    model.model_mut().add_adapter("x", &stirred).unwrap();
    for strength in [1e38, 1e25, -1e30] {
        model.model_mut().set_adapters(&[("x", strength)]).unwrap();
        let error = first_error(&model, greedy(4));
        assert_eq!(
            error.to_string(),
            format!("adapter: the strength {strength:?} of `x` is too large: layer 0 overflows")
        );
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
    }
    let broken = with(&stirred, &model, "layers.3.ffn.proj_2.lora_a", |i| {
        (i == 2).then_some(f32::NAN)
    });
    model.model_mut().add_adapter("y", &broken).unwrap();
    let error = first_error(&model, greedy(4));
    assert_eq!(
        error.to_string(),
        "y: tensor `transformer.layers.3.ffn.proj_2.lora_a` holds NaN"
    );
    model.model_mut().set_adapters(&[("x", 1.0)]).unwrap();
    assert_eq!(run(&model, PROMPT, greedy(4)).tokens.len(), 4);
}

/// An error of a later step keeps the tokens before it, also with a cached prompt and in a chat.
#[test]
fn checks_every_step() {
    let mut model = load();
    let first = run(&model, PROMPT, greedy(1)).ids()[0] as usize;
    let plain = adapter(&model, Keys::Names(vec!["token_embeddings".into()]), 1);
    let rank = LoraOptions::default().rank;
    let broken = with(&plain, &model, "lora_a", |i| {
        (i / rank == first).then_some(f32::NAN)
    });
    model.model_mut().add_adapter("x", &broken).unwrap();
    let expected = "x: tensor `transformer.token_embeddings.lora_a` holds NaN";
    let (error, tokens) = failure(model.generate(PROMPT, greedy(4)).unwrap());
    assert_eq!((error.to_string().as_str(), tokens), (expected, 1));

    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let with_cache = |prompt: Vec<u32>, cache: PromptCache, options| {
        Generation::with_cache(
            model.model(),
            Some(model.tokenizer()),
            prompt,
            options,
            cache,
        )
    };
    let mut warmed = with_cache(prompt.clone(), PromptCache::default(), greedy(1)).unwrap();
    assert!(warmed.by_ref().all(|event| event.is_ok()));
    let cache = warmed.into_cache();
    assert!(cache.offset() > 0);
    let longer = [&prompt[..], &[first as u32, 5]].concat();
    let (error, tokens) = failure(with_cache(longer, cache, greedy(4)).unwrap());
    assert_eq!((error.to_string().as_str(), tokens), (expected, 0));

    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    model.model_mut().set_adapters(&[]).unwrap();
    let mut answer = chat.start(&model, PROMPT, greedy(3)).unwrap();
    assert!(answer.by_ref().all(|event| event.is_ok()));
    chat.finish(answer);
    let said = chat.messages().len();
    model.model_mut().set_adapters(&[("x", 1.0)]).unwrap();
    let question = model.tokenizer().decode(&[first as u32]).unwrap();
    let (error, _) = failure(chat.start(&model, &question, greedy(3)).unwrap());
    assert_eq!(error.to_string(), expected);
    chat.withdraw();
    assert_eq!(chat.messages().len(), said);
}

#[test]
fn logits_of_zeros_are_finite() {
    let zeros: Vec<_> = (0..192)
        .map(|i| ("transformer.norm.weight", i, 0.0))
        .collect();
    let model = changed(&zeros, Dtype::Float32);
    let outcome = run(&model, PROMPT, greedy(3));
    assert_eq!(outcome.ids(), [0, 0, 0]);
    // Half precision without an overflow.
    assert_eq!(
        run(&load_as(Dtype::Float16), PROMPT, greedy(3))
            .tokens
            .len(),
        3
    );
}
