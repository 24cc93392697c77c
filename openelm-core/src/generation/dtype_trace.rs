//! The dtypes of a decoding step on a GPU: 16 bits except for the logits and what follows from them,
//! and for sums in norms. In one operation on a GPU, those are float32 inside the kernel.

use std::collections::BTreeMap;

use openelm_testing::tales;

use super::{GenerateOptions, LanguageModel, LoadOptions};
use crate::mlx::{Device, Dtype, graph};

#[test]
fn a_step_computes_in_16_bits_up_to_the_logits() {
    let _gpu = Device::Gpu.select();
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    assert_eq!(model.model().dtype(), Dtype::Bfloat16);
    let options = GenerateOptions {
        max_tokens: 3,
        logprobs: 2,
        ..GenerateOptions::default()
    };
    let graphs = graph::recorded(|| {
        let mut generation = model.generate("Once", options).unwrap();
        assert!(generation.all(|event| event.is_ok()));
    });
    let config = model.model().config();
    assert_eq!(graphs.len(), 3);
    for step in &graphs[1..] {
        let of_norm = graph::casts_of_a_norm();
        let mut expected = BTreeMap::from([(vec![model.tokenizer().vocab_size()], 1)]);
        let mut norm = |shape: &[usize]| *expected.entry(shape.to_vec()).or_default() += of_norm;
        norm(&[1, 1, config.model_dim()]);
        for layer in config.layers() {
            norm(&[1, 1, config.model_dim()]);
            norm(&[1, 1, layer.q_heads + layer.kv_heads, config.head_dim()]);
            norm(&[1, 1, config.model_dim()]);
        }
        expected.retain(|_, count| *count > 0);
        assert_eq!(graph::widened(step), expected);
        let names = [
            "Matmul",
            "AddMM",
            "QuantizedMatmul",
            "Softmax",
            "ScaledDotProductAttention",
            "Sigmoid",
            "Split",
            "Concatenate",
            "SliceUpdate",
        ];
        assert_eq!(graph::float32_results(step, &names), [] as [&_; 0]);
        let is_product = |name: &str| ["Matmul", "AddMM"].contains(&name);
        let products = step.iter().filter(|o| is_product(&o.name)).count();
        assert!(products > 4 * config.num_transformer_layers(), "{products}");
    }
}
