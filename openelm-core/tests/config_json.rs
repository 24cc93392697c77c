//! Apple's `config.json`: reading, writing, and errors with the invalid key.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::Result;
use openelm_core::config::Preset;
use openelm_core::{
    Config,
    config::{Layer, LayerWiseConfig, Multipliers},
};
use serde_json::{Value, json};

/// Apple's config.json of OpenELM-270M-Instruct.
fn apple() -> Value {
    json!({
        "activation_fn_name": "swish",
        "architectures": ["OpenELMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_openelm.OpenELMConfig",
            "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM",
        },
        "bos_token_id": 1,
        "eos_token_id": 2,
        "ffn_dim_divisor": 256,
        "ffn_multipliers": [
            0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0
        ],
        "ffn_with_glu": true,
        "head_dim": 64,
        "initializer_range": 0.02,
        "max_context_length": 2048,
        "model_dim": 1280,
        "model_type": "openelm",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": true,
        "num_gqa_groups": 4,
        "num_kv_heads": [3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5],
        "num_query_heads": [12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20],
        "num_transformer_layers": 16,
        "qkv_multipliers": [0.5, 1.0],
        "rope_freq_constant": 10000,
        "rope_max_length": 4096,
        "share_input_output_layers": true,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.39.3",
        "use_cache": true,
        "vocab_size": 32000,
    })
}

/// Two uneven layers that follow no multipliers, with only the keys that mlx-lm needs.
fn listed() -> Value {
    json!({
        "model_type": "openelm",
        "head_dim": 16,
        "num_transformer_layers": 2,
        "model_dim": 48,
        "vocab_size": 64,
        "ffn_dim_divisor": 16,
        "num_query_heads": [6, 1],
        "num_kv_heads": [2, 1],
        "ffn_multipliers": [2.0, 1.0],
        "normalize_qk_projections": true,
        "share_input_output_layers": true,
    })
}

fn parse(value: &Value) -> Result<Config> {
    Config::from_json(&value.to_string(), "m/config.json")
}

/// The error of Apple's file with `key` replaced.
fn refusal(key: &str, value: Value) -> String {
    let mut config = apple();
    config[key] = value;
    parse(&config).unwrap_err().to_string()
}

#[test]
fn apples_config_round_trips_as_preset() {
    let config = parse(&apple()).unwrap();
    assert_eq!(config.layers(), Preset::Size270M.config().layers());
    assert_eq!(config.parameter_count(), 271_527_168);
    assert_eq!(
        config.qkv_multipliers(),
        Some(&Multipliers::Range(0.5, 1.0))
    );
    assert_eq!(config.torch_dtype(), Some("bfloat16"));
    assert_eq!(config.rms_norm_eps(), 1e-6);
    assert_eq!(config.quantization(), None);
    assert_eq!(config.extra().len(), 6);
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written, apple());
}

#[test]
fn presets_and_variants_round_trip() {
    for preset in Preset::ALL {
        let config = Config::from_json(&preset.config().to_json(), "config.json").unwrap();
        assert_eq!(config.layers(), preset.config().layers(), "{preset}");
        assert_eq!(
            config.parameter_count(),
            preset.config().parameter_count(),
            "{preset}"
        );
    }
    let variant = LayerWiseConfig {
        num_gqa_groups: None,
        qkv_multipliers: Multipliers::Uniform(0.7),
        ffn_multipliers: Multipliers::PerLayer((1..=16).map(|i| f64::from(i) / 4.0).collect()),
        ffn_with_glu: false,
        normalize_qk_projections: false,
        share_input_output_layers: false,
        rms_norm_eps: 1e-5,
        rope_freq_constant: 12_345.5,
        ..LayerWiseConfig::default()
    };
    let config = Config::layer_wise(variant).unwrap();
    assert_eq!(
        Config::from_json(&config.to_json(), "config.json").unwrap(),
        config
    );
}

#[test]
fn heads_follow_multipliers_or_lists() {
    let mut scaled = apple();
    scaled["num_query_heads"] = Value::Null;
    scaled.as_object_mut().unwrap().remove("num_kv_heads");
    scaled["ffn_multipliers"] = json!([0.5, 4.0]);
    assert_eq!(
        parse(&scaled).unwrap().layers(),
        Preset::Size270M.config().layers()
    );

    let config = parse(&listed()).unwrap();
    assert_eq!(
        config.layers(),
        [
            Layer {
                q_heads: 6,
                kv_heads: 2,
                ffn_dim: 96
            },
            Layer {
                q_heads: 1,
                kv_heads: 1,
                ffn_dim: 48
            },
        ],
    );
    assert_eq!(
        (config.qkv_multipliers(), config.num_gqa_groups()),
        (None, None)
    );
    assert_eq!(config.max_context_length(), 2048);
    assert_eq!(
        parse(&serde_json::from_str(&config.to_json()).unwrap()).unwrap(),
        config
    );
}

#[test]
fn bundled_model_agrees_with_its_multipliers() {
    let mut tales = apple();
    for (key, value) in [
        ("ffn_dim_divisor", json!(64)),
        ("ffn_multipliers", json!([0.5, 1.2, 1.9, 2.6, 3.3, 4.0])),
        ("head_dim", json!(32)),
        ("model_dim", json!(192)),
        ("num_gqa_groups", json!(2)),
        ("num_kv_heads", json!([2, 2, 2, 3, 3, 3])),
        ("num_query_heads", json!([4, 4, 4, 6, 6, 6])),
        ("num_transformer_layers", json!(6)),
        ("vocab_size", json!(2048)),
    ] {
        tales[key] = value;
    }
    let config = parse(&tales).unwrap();
    assert_eq!(config.parameter_count(), 2_497_344);
    assert_eq!(
        config.layers()[5],
        Layer {
            q_heads: 6,
            kv_heads: 3,
            ffn_dim: 768
        }
    );
}

#[test]
fn rejects_contradictions() {
    let lists = |query: Value, kv: Value| {
        let mut config = listed();
        (config["num_query_heads"], config["num_kv_heads"]) = (query, kv);
        config
    };
    assert_eq!(
        parse(&lists(json!([6, 3]), json!([2, 2])))
            .unwrap_err()
            .to_string(),
        "m/config.json: `num_kv_heads`: layer 1 has 3 query heads, not a multiple of its \
         2 KV heads",
    );
    let mut groups = listed();
    groups["num_gqa_groups"] = json!(3);
    assert_eq!(
        parse(&groups).unwrap_err().to_string(),
        "m/config.json: `num_gqa_groups`: layer 1 has 1 query heads on 1 KV heads, not 3 on each",
    );
    assert_eq!(
        refusal(
            "num_query_heads",
            json!([
                12, 12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20
            ])
        ),
        "m/config.json: `num_query_heads`: layer 5 has 12 in this list and 16 by \
         qkv_multipliers and num_gqa_groups",
    );
    assert_eq!(
        refusal(
            "num_kv_heads",
            json!([3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 20])
        ),
        "m/config.json: `num_kv_heads`: layer 15 has 20 in this list and 5 by \
         qkv_multipliers and num_gqa_groups",
    );
}

#[test]
fn reports_missing_keys() {
    for key in [
        "model_type",
        "head_dim",
        "num_transformer_layers",
        "model_dim",
        "vocab_size",
        "ffn_dim_divisor",
        "num_query_heads",
        "num_kv_heads",
        "ffn_multipliers",
        "normalize_qk_projections",
        "share_input_output_layers",
    ] {
        let mut config = listed();
        config.as_object_mut().unwrap().remove(key);
        let message = parse(&config).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("m/config.json: `{key}`: missing, expected")),
            "{message}"
        );
    }
    let mut config = apple();
    config.as_object_mut().unwrap().remove("num_gqa_groups");
    assert!(
        parse(&config)
            .unwrap_err()
            .to_string()
            .contains("`num_gqa_groups`: missing")
    );
    for key in ["num_query_heads", "num_kv_heads"] {
        config = listed();
        config[key] = Value::Null;
        assert!(
            parse(&config)
                .unwrap_err()
                .to_string()
                .contains(&format!("`{key}`: missing"))
        );
    }
}

#[test]
fn null_is_an_absent_key() {
    for (key, expected) in [
        ("activation_fn_name", None),
        ("normalization_layer_name", None),
        ("max_context_length", None),
        ("ffn_with_glu", None),
        ("rms_norm_eps", None),
        ("rope_freq_constant", None),
        ("rope_max_length", None),
        ("bos_token_id", None),
        ("eos_token_id", None),
        ("qkv_multipliers", None),
        ("quantization", None),
        ("rope_scaling", None),
        ("torch_dtype", None),
        ("model_type", Some("missing, expected \"openelm\"")),
        ("model_dim", Some("missing, expected an integer")),
        ("ffn_multipliers", Some("missing, expected a number")),
        ("share_input_output_layers", Some("missing, expected true")),
    ] {
        let mut config = listed();
        config[key] = Value::Null;
        match (parse(&config), expected) {
            (Ok(found), None) => {
                config.as_object_mut().unwrap().remove(key);
                let absent = parse(&config).unwrap();
                assert_eq!(found.layers(), absent.layers(), "{key}");
                assert_eq!(found.quantization(), None);
            }
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected), "{error}: expected {expected}");
            }
            (found, _) => panic!("{key}: {found:?}"),
        }
    }
}

#[rustfmt::skip]
#[test]
fn rejects_values_out_of_range() {
    for (key, value, problem) in [
        ("model_type", json!("llama"), "expected \"openelm\", found \"llama\""),
        ("activation_fn_name", json!("gelu"), "expected \"swish\" or \"silu\", found \"gelu\""),
        ("normalization_layer_name", json!("layer_norm"),
         "expected \"rms_norm\", found \"layer_norm\""),
        ("model_dim", json!(1280.5), "expected an integer from 1 to 65536, found 1280.5"),
        ("model_dim", json!("1280"), "expected an integer from 1 to 65536, found \"1280\""),
        ("vocab_size", json!(-1), "expected an integer from 1 to 2097152, found -1"),
        ("vocab_size", json!(u64::MAX),
         "expected an integer from 1 to 2097152, found 18446744073709551615"),
        ("head_dim", json!(7), "expected an even width for rotary pairs, found 7"),
        ("num_gqa_groups", json!(0), "expected an integer from 1 to 1024, found 0"),
        ("ffn_with_glu", json!(1), "expected true or false, found 1"),
        ("rms_norm_eps", json!(0), "expected a number from 0.000000000001 to 0.1, found 0"),
        ("rope_freq_constant", json!("1"),
         "expected a number from 1 to 1000000000000, found \"1\""),
        ("eos_token_id", json!(32_000), "expected an id below vocab_size 32000, found 32000"),
        ("num_query_heads", json!(12), "expected a list of 16 (num_transformer_layers), found 12"),
        ("num_query_heads", json!([12]),
         "expected a list of 16 (num_transformer_layers), found a list of 1"),
        ("num_kv_heads", json!(vec![0; 16]),
         "layer 0: expected an integer from 1 to 65536, found 0"),
        ("ffn_multipliers", json!([1, 2, 3]),
         "expected a number or a list of 2 or 16 (num_transformer_layers), found a list of 3"),
        ("ffn_multipliers", json!([1, {}]), "entry 1: expected a number, found an object"),
        ("qkv_multipliers", json!([]), "expected a number or a list of 2, found a list of 0"),
        ("qkv_multipliers", json!([0.5, 65]), "expected numbers from 0.01 to 64, found 65"),
        ("torch_dtype", json!(16), "expected the name of a type, found 16"),
        ("model_type", json!("x".repeat(999)),
         "expected \"openelm\", found \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
          xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\""),
    ] {
        assert_eq!(refusal(key, value), format!("m/config.json: `{key}`: {problem}"));
    }
}
