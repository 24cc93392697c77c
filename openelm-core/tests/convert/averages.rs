//! The mean of several checkpoints.

use openelm_core::{
    Config, Dtype,
    config::LayerWiseConfig,
    convert::{ConvertOptions, Quantize},
    quantization::{Quantization, QuantizationMode},
};

use crate::models::{
    Tensor, Tensors, convert, plain, random, read, settings, small, with_source, write_model,
};

/// The tensors with each value changed by `change`.
fn changed(tensors: &Tensors, change: impl Fn(f32) -> f32) -> Tensors {
    let tensors = tensors.iter().map(|(name, tensor)| {
        let values: Vec<f32> = tensor.values().into_iter().map(&change).collect();
        (
            name.clone(),
            Tensor::of(Dtype::Float32, &tensor.shape, &values),
        )
    });
    tensors.collect()
}

#[test]
fn the_mean_is_summed_in_64_bits_and_rounded_once() {
    let (folder, first) = with_source(&small(), Dtype::Float32);
    let second = changed(&first, |x| 1.0 - x * 3.0);
    // Its bits are lost in a sum of f32 numbers.
    let third = changed(&first, |x| x * 1e-9);
    write_model(&folder.join("second"), &small(), &second);
    write_model(&folder.join("third"), &small(), &third);
    let options = ConvertOptions {
        average_with: vec![folder.join("second"), folder.join("third")],
        ..plain()
    };
    let target = folder.join("target");
    let report = convert(&folder.join("source"), &target, &options).unwrap();
    assert_eq!(report.verification.unwrap().tensors.identical, first.len());
    let found = read(&target);
    for (name, tensor) in &first {
        let all = [tensor, &second[name], &third[name]].map(Tensor::values);
        for (at, found) in found[name].values().into_iter().enumerate() {
            let sum: f64 = all.iter().map(|values| f64::from(values[at])).sum();
            assert_eq!(found, (sum / 3.0) as f32, "{name}");
        }
    }
}

#[test]
fn stored_and_requested_types_are_kept() {
    let (folder, first) = with_source(&small(), Dtype::Bfloat16);
    write_model(
        &folder.join("second"),
        &small(),
        &changed(&first, |x| x + 0.5),
    );
    for (dtype, expected) in [
        (None, Dtype::Bfloat16),
        (Some(Dtype::Float32), Dtype::Float32),
    ] {
        let options = ConvertOptions {
            average_with: vec![folder.join("second")],
            dtype,
            ..plain()
        };
        let target = folder.join(format!("{expected}"));
        convert(&folder.join("source"), &target, &options).unwrap();
        let mean = changed(&first, |x| {
            ((f64::from(x) + f64::from(x + 0.5)) / 2.0) as f32
        });
        let mean: Tensors = mean
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.cast(expected)))
            .collect();
        assert_eq!(read(&target), mean);
    }
}

#[test]
fn other_architectures_and_quantised_weights_are_refused() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let wide = Config::layer_wise(LayerWiseConfig {
        vocab_size: 128,
        ..settings()
    });
    let wide = wide.unwrap();
    write_model(&folder.join("wide"), &wide, &random(&wide, Dtype::Float32));
    let quantized = ConvertOptions {
        quantize: Some(Quantize {
            quantization: Quantization::new(QuantizationMode::Affine, None, None).unwrap(),
            recipe: None,
            layers: Vec::new(),
        }),
        ..plain()
    };
    convert(&folder.join("source"), &folder.join("packed"), &quantized).unwrap();
    for (other, expected) in [
        ("wide", "expected shape [96, 128] as in "),
        (
            "packed",
            "expected weights that are not quantised to average",
        ),
        ("absent", "no such file or folder"),
    ] {
        let options = ConvertOptions {
            average_with: vec![folder.join(other)],
            ..plain()
        };
        let target = folder.join("target");
        let problem = convert(&folder.join("source"), &target, &options).unwrap_err();
        let problem = problem.to_string();
        assert!(problem.contains(expected), "{problem}: expected {expected}");
        assert!(problem.contains(other), "{problem}");
        assert!(!target.exists());
    }
}
