//! Learned quantisation: methods, mixed widths, interruptions, and refusals.

use std::{collections::BTreeMap, fs, path::PathBuf};

use openelm_core::{
    CancelHandle, Dtype, Error, LanguageModel, LoadOptions, Result,
    convert::Quantize,
    evaluate::{PerplexityOptions, divergence},
    quantization::{Quantization, QuantizationMode},
    quantize::{Method, QuantizeEvent, QuantizeOptions, QuantizeReport, Widths, quantize},
};
use openelm_testing::{TempDir, tales, write_tales};
use serde_json::Value;

use crate::models::{convert, files, plain, talking, with_source};

/// A small model with a tokenizer, as `source`, and a text, as `text.jsonl`.
fn scratch() -> TempDir {
    let (folder, _) = with_source(&talking(), Dtype::Bfloat16);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tales().join(name), folder.join("source").join(name)).unwrap();
    }
    let row = |i: usize| {
        let animal = ["fox", "hen", "owl", "bear", "mouse"][i % 5];
        format!(
            "{{\"text\": \"The {animal} had {i} apples, and the queen of the hills had none.\"}}\n"
        )
    };
    folder.write("text.jsonl", (0..60).map(row).collect::<String>());
    folder
}

fn options(folder: &TempDir, method: Method) -> QuantizeOptions {
    QuantizeOptions {
        method,
        group_size: 32,
        data: vec![folder.join("text.jsonl")],
        samples: 24,
        max_seq_length: Some(32),
        epochs: 2,
        save_every: 3,
        ..QuantizeOptions::default()
    }
}

fn run(folder: &TempDir, target: &str, options: &QuantizeOptions) -> Result<QuantizeReport> {
    let cancel = CancelHandle::default();
    let target = folder.join(target);
    quantize(folder.join("source"), target, options, &cancel, |_| ())
}

/// The files of a result, without the duration and the target's name.
fn result(folder: &TempDir, target: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = files(&folder.join(target));
    for (name, keys) in [
        ("quantize-report.json", ["seconds", "target"]),
        ("convert-report.json", ["seconds", "target"]),
    ] {
        let mut json: Value = serde_json::from_slice(&found[name]).unwrap();
        let object = json.as_object_mut().unwrap();
        for key in keys {
            object.remove(key).unwrap();
        }
        found.insert(name.into(), json.to_string().into_bytes());
    }
    found
}

#[test]
fn methods_reduce_the_divergence_of_rounding() {
    let folder = scratch();
    let mut kls = BTreeMap::new();
    for method in Method::ALL {
        let name = method.name();
        let report = run(&folder, name, &options(&folder, method)).unwrap();
        assert_eq!(report.method, name);
        assert_eq!(report.parts.len(), 3);
        assert_eq!(report.points.len(), 7);
        // The report is of the written files.
        let load =
            |name: &str| LanguageModel::load(folder.join(name), &LoadOptions::default()).unwrap();
        let (reference, model) = (load("source"), load(name));
        let text: [PathBuf; 1] = [folder.join("text.jsonl")];
        let found = divergence(
            &reference,
            &model,
            &text,
            &PerplexityOptions::default(),
            &CancelHandle::default(),
            |_| Ok::<_, Error>(()),
        );
        let kl = found.unwrap().kl_per_token();
        let ratio = kl / report.quantized.kl;
        assert!(
            (0.5..2.0).contains(&ratio),
            "{name}: {kl} {}",
            report.quantized.kl
        );
        kls.insert(name, report.quantized.kl);
    }
    assert!(kls["gptq"] < kls["round"], "{kls:?}");
    assert!(kls["awq"] < kls["round"], "{kls:?}");
    assert!(kls["dwq"] < kls["gptq"], "{kls:?}");
    assert!(kls["dwq"] < 0.5 * kls["round"], "{kls:?}");
}

#[test]
fn rounding_writes_the_weights_of_a_conversion() {
    let folder = scratch();
    run(&folder, "rounded", &options(&folder, Method::Round)).unwrap();
    let four = Quantization::new(QuantizationMode::Affine, Some(4), Some(32)).unwrap();
    let converted = openelm_core::convert::ConvertOptions {
        quantize: Some(Quantize::uniform(four)),
        tokenizer: openelm_core::convert::TokenizerChoice::OfSource,
        ..plain()
    };
    convert(
        &folder.join("source"),
        &folder.join("converted"),
        &converted,
    )
    .unwrap();
    let (rounded, converted) = (
        files(&folder.join("rounded")),
        files(&folder.join("converted")),
    );
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        assert!(rounded[name] == converted[name], "{name}");
    }
}

#[test]
fn mixed_widths_have_the_target_size() {
    let folder = scratch();
    let mixed = QuantizeOptions {
        widths: Widths::Target(4.6),
        ..options(&folder, Method::Gptq)
    };
    let report = run(&folder, "mixed", &mixed).unwrap();
    assert!(report.bits_per_weight <= 4.6, "{}", report.bits_per_weight);
    assert!(report.bits_per_weight > 4.3, "{}", report.bits_per_weight);
    let matrices = report.parts.iter().flat_map(|part| &part.matrices);
    let bits: Vec<usize> = matrices.map(|matrix| matrix.bits).collect();
    assert!(bits.iter().any(|found| *found != bits[0]), "{bits:?}");
    let config = fs::read(folder.join("mixed").join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let default = config["quantization"]["bits"].as_u64().unwrap();
    for matrix in report.parts.iter().flat_map(|part| &part.matrices) {
        assert_eq!(matrix.sensitivity.len(), 6);
        let own = config["quantization"][&matrix.name]["bits"].as_u64();
        assert_eq!(
            own.unwrap_or(default),
            matrix.bits as u64,
            "{}",
            matrix.name
        );
    }
    LanguageModel::load(folder.join("mixed"), &LoadOptions::default()).unwrap();
}

#[test]
fn an_interrupted_run_writes_the_same_files() {
    let folder = scratch();
    let dwq = QuantizeOptions {
        widths: Widths::Target(4.6),
        ..options(&folder, Method::Dwq)
    };
    run(&folder, "whole", &dwq).unwrap();
    for stop in 1.. {
        let (mut events, mut interrupted) = (0, false);
        let cancel = CancelHandle::default();
        let found = quantize(
            folder.join("source"),
            folder.join("parts"),
            &dwq,
            &cancel,
            |event| {
                // Not at every step of the distillation.
                let skips = matches!(event, QuantizeEvent::Distilled { done, .. } if done % 4 != 1);
                events += usize::from(!skips);
                if events == stop && !skips {
                    interrupted = true;
                    cancel.cancel();
                }
            },
        );
        match found {
            Err(Error::Cancelled) => assert!(interrupted && !folder.join("parts").exists()),
            Err(error) => panic!("{error}"),
            Ok(_) if !interrupted => break,
            Ok(_) => panic!("it was not interrupted"),
        }
    }
    assert!(result(&folder, "whole") == result(&folder, "parts"));
    assert_eq!(folder.names(), ["parts", "source", "text.jsonl", "whole"]);
}

#[test]
fn another_run_does_not_continue_the_first() {
    let folder = scratch();
    let gptq = options(&folder, Method::Gptq);
    let cancel = CancelHandle::default();
    let stop = |event| {
        if matches!(event, QuantizeEvent::Quantized { done: 2, .. }) {
            cancel.cancel();
        }
    };
    quantize(
        folder.join("source"),
        folder.join("out"),
        &gptq,
        &cancel,
        stop,
    )
    .unwrap_err();
    let three = QuantizeOptions {
        widths: Widths::Uniform(3),
        ..gptq
    };
    run(&folder, "out", &three).unwrap();
    run(&folder, "expected", &three).unwrap();
    assert!(result(&folder, "out") == result(&folder, "expected"));
}

#[test]
fn refuses_what_it_cannot_do() {
    let folder = scratch();
    folder.write("short.jsonl", "{\"text\": \"Too short.\"}\n");
    let gptq = options(&folder, Method::Gptq);
    let refused = |source: &str, change: &dyn Fn(&mut QuantizeOptions)| {
        let mut options = gptq.clone();
        change(&mut options);
        let cancel = CancelHandle::default();
        let source = folder.join(source);
        let found = quantize(source, folder.join("out"), &options, &cancel, |_| ());
        assert!(!folder.join("out").exists());
        found.unwrap_err().to_string()
    };
    let message = refused("source", &|o| o.data = vec![folder.join("short.jsonl")]);
    assert!(
        message.starts_with("data: expected text of at least 64 tokens"),
        "{message}"
    );
    let message = refused("source", &|o| o.valid = vec![folder.join("short.jsonl")]);
    assert!(
        message.starts_with("valid: expected text of at least 32 tokens"),
        "{message}"
    );
    for bits in [1.5, 12.0] {
        let message = refused("source", &|o| o.widths = Widths::Target(bits));
        assert!(
            message.starts_with("target_bits: expected 3.0"),
            "{message}"
        );
    }
    let message = refused("source", &|o| o.max_seq_length = Some(65));
    assert!(
        message.starts_with("max_seq_length: expected 2 to"),
        "{message}"
    );
    run(&folder, "quantised", &gptq).unwrap();
    let message = refused("quantised", &|_| ());
    assert!(
        message.starts_with("model: expected an unquantised model"),
        "{message}"
    );
    let message = run(&folder, "quantised", &gptq).unwrap_err().to_string();
    assert!(message.contains("exists"), "{message}");
    fs::create_dir(folder.join("nan")).unwrap();
    write_tales(
        &folder.join("nan"),
        &[("transformer.layers.2.ffn.proj_1.weight", 7, f32::NAN)],
    );
    let message = refused("nan", &|_| ());
    assert!(
        message.contains("transformer.layers.2.ffn.proj_1.weight"),
        "{message}"
    );
}
