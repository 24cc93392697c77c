//! Mixed-bit recipes and rules.

use std::{collections::BTreeMap, fs};

use openelm_core::{
    Config, Dtype,
    config::LayerWiseConfig,
    convert::{ConvertOptions, LayerRule, Quantize, Recipe},
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::TempDir;
use serde_json::{Value, json};

use crate::models::{convert, difference, logits, plain, read, settings, small, with_source};

fn quantize(recipe: Option<&str>, rules: &[&str]) -> ConvertOptions {
    let quantization = Quantization::new(QuantizationMode::Affine, None, Some(32)).unwrap();
    let rule = |rule: &&str| rule.parse::<LayerRule>().unwrap();
    ConvertOptions {
        quantize: Some(Quantize {
            quantization,
            recipe: recipe.map(|name| name.parse::<Recipe>().unwrap()),
            layers: rules.iter().map(rule).collect(),
        }),
        ..plain()
    }
}

/// Bits of every packed matrix, from its stored shape, and the block of `config.json`.
fn bits(folder: &TempDir, model: &str) -> (BTreeMap<String, usize>, Value) {
    let tensors = read(&folder.join(model));
    let packed = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".scales"));
    let of = |stem: &str| {
        let words = &tensors[&format!("{stem}.weight")].shape;
        let groups = &tensors[&format!("{stem}.scales")].shape;
        (stem.to_owned(), words[1] * 32 / (groups[1] * 32))
    };
    let config = fs::read(folder.join(model).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    (packed.map(of).collect(), config["quantization"].clone())
}

/// Nine narrow layers.
fn deep(shared: bool) -> Config {
    Config::layer_wise(LayerWiseConfig {
        model_dim: 64,
        num_transformer_layers: 9,
        head_dim: 32,
        ffn_dim_divisor: 32,
        share_input_output_layers: shared,
        ..settings()
    })
    .unwrap()
}

#[test]
fn recipes_match_mlx_lm() {
    for shared in [true, false] {
        let (folder, _) = with_source(&deep(shared), Dtype::Float32);
        for (recipe, low, high) in [
            ("mixed_2_6", 2, 6),
            ("mixed_3_4", 3, 4),
            ("mixed_3_6", 3, 6),
            ("mixed_4_6", 4, 6),
        ] {
            convert(
                &folder.join("source"),
                &folder.join(recipe),
                &quantize(Some(recipe), &[]),
            )
            .unwrap();
            let (bits, block) = bits(&folder, recipe);
            assert_eq!(bits.len(), 1 + 9 * 4 + usize::from(!shared));
            // An eighth of nine layers is one: layers from 7/8 on, and every third layer.
            let more = [0, 3, 6, 7, 8];
            for (name, &found) in &bits {
                let layer = name.strip_prefix("transformer.layers.");
                let rich = match layer.and_then(|rest| rest.split_once('.')) {
                    Some((layer, "ffn.proj_2" | "attn.qkv_proj")) => {
                        more.contains(&layer.parse().unwrap())
                    }
                    Some(_) => false,
                    None => name == "lm_head" || shared,
                };
                assert_eq!(found, if rich { high } else { low }, "{recipe} {name}");
                let exception = json!({ "group_size": 32, "bits": high, "mode": "affine" });
                assert_eq!(
                    block.get(name),
                    rich.then_some(&exception),
                    "{recipe} {name}"
                );
            }
            assert_eq!(block["bits"], low);
            let target = folder.join(recipe);
            let apart = difference(&logits(&target, true), &logits(&target, false));
            assert!(apart < 2e-5, "{recipe}: {apart}");
        }
    }
}

#[test]
fn first_matching_rule_decides() {
    let (folder, _) = with_source(&small(), Dtype::Bfloat16);
    let rules = [
        r"layers\.1\.ffn=8",
        "ffn=3",
        "embeddings$=6",
        "embeddings=2",
    ];
    convert(
        &folder.join("source"),
        &folder.join("rules"),
        &quantize(None, &rules),
    )
    .unwrap();
    let (found, block) = bits(&folder, "rules");
    let expected = [
        ("transformer.layers.0.attn.out_proj", 4),
        ("transformer.layers.0.attn.qkv_proj", 4),
        ("transformer.layers.0.ffn.proj_1", 3),
        ("transformer.layers.0.ffn.proj_2", 3),
        ("transformer.layers.1.attn.out_proj", 4),
        ("transformer.layers.1.attn.qkv_proj", 4),
        ("transformer.layers.1.ffn.proj_1", 8),
        ("transformer.layers.1.ffn.proj_2", 8),
        ("transformer.token_embeddings", 6),
    ];
    let expected = expected.map(|(name, bits)| (name.to_owned(), bits));
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(block["bits"], 4);
    // Five exceptions and the three settings.
    assert_eq!(block.as_object().unwrap().len(), 3 + 5);

    // A rule has priority over a recipe.
    convert(
        &folder.join("source"),
        &folder.join("both"),
        &quantize(Some("mixed_3_6"), &["proj_1=8"]),
    )
    .unwrap();
    let (found, _) = bits(&folder, "both");
    assert_eq!(found["transformer.layers.0.ffn.proj_1"], 8);
    assert_eq!(found["transformer.layers.0.attn.out_proj"], 3);
    assert_eq!(found["transformer.token_embeddings"], 6);
}

#[test]
fn mixed_models_are_loaded_converted_and_dequantized() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    convert(
        &folder.join("source"),
        &folder.join("mixed"),
        &quantize(Some("mixed_4_6"), &["out_proj=8"]),
    )
    .unwrap();
    let report = convert(&folder.join("mixed"), &folder.join("copy"), &plain()).unwrap();
    assert_eq!(
        report.verification.unwrap().tensors.identical,
        tensors.len()
    );
    assert_eq!(read(&folder.join("copy")), read(&folder.join("mixed")));
    assert_eq!(bits(&folder, "copy"), bits(&folder, "mixed"));

    // All matrices at 6 bits: 6-bit matrices are quantised again to the same bits.
    let quantization = Quantization::new(QuantizationMode::Affine, Some(6), Some(32)).unwrap();
    let options = ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    };
    convert(&folder.join("mixed"), &folder.join("even"), &options).unwrap();
    let (found, block) = bits(&folder, "even");
    assert!(found.values().all(|&bits| bits == 6));
    assert_eq!(block.as_object().unwrap().len(), 3);
    let (mixed, even) = (read(&folder.join("mixed")), read(&folder.join("even")));
    let embedding = "transformer.token_embeddings.weight";
    assert_eq!(mixed[embedding], even[embedding]);
}
