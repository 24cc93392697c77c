//! Other names of OpenELM's settings, as Hugging Face's configurations of other models have them:
//! accepted if they say the same, refused with both values if not.

use std::fmt;

use serde_json::Value;

use super::{
    keys::{Keys, shorten, show},
    layer_wise::LayerWiseConfig,
};
use crate::{
    error::{Error, Result},
    mlx::QuantizationMap,
};

/// The names; [`Keys::check_aliases`] compares the values.
#[rustfmt::skip]
const ALIASES: [&str; 20] = [
    "hidden_act", "hidden_activation", "hidden_size", "layer_norm_eps", "layer_norm_epsilon",
    "layer_types", "max_position_embeddings", "n_embd", "n_layer", "norm_eps", "num_hidden_layers",
    "num_layers", "partial_rotary_factor", "qk_norm", "rms_norm_epsilon", "rope_parameters",
    "rope_scaling", "rope_theta", "tie_word_embeddings", "use_qk_norm",
];

/// Keys of a description of rotary embeddings, besides its kind and base, with the values that
/// change nothing.
const ROPE_FACTORS: [(&str, f64); 3] = [
    ("factor", 1.0),
    ("attention_factor", 1.0),
    ("partial_rotary_factor", 1.0),
];

/// True for another name of a setting.
pub(super) fn is_alias(key: &str) -> bool {
    ALIASES.contains(&key)
}

impl Keys<'_> {
    /// Checks that keys with the meaning of an OpenELM key have the same value.
    pub(super) fn check_aliases(&self, settings: &LayerWiseConfig) -> Result<()> {
        let flag = |key: &str, stated: bool| self.agrees(key, |value| *value == stated, stated);
        let size = |key: &str, stated: f64| {
            self.agrees(key, |value| value.as_f64() == Some(stated), stated)
        };
        flag("tie_word_embeddings", settings.share_input_output_layers)?;
        for key in ["use_qk_norm", "qk_norm"] {
            flag(key, settings.normalize_qk_projections)?;
        }
        for key in ["hidden_size", "n_embd"] {
            size(key, settings.model_dim as f64)?;
        }
        for key in ["num_hidden_layers", "num_layers", "n_layer"] {
            size(key, settings.num_transformer_layers as f64)?;
        }
        for key in [
            "norm_eps",
            "rms_norm_epsilon",
            "layer_norm_eps",
            "layer_norm_epsilon",
        ] {
            size(key, settings.rms_norm_eps)?;
        }
        size(
            "max_position_embeddings",
            settings.max_context_length as f64,
        )?;
        size("rope_theta", settings.rope_freq_constant)?;
        size("partial_rotary_factor", 1.0)?;
        for key in ["hidden_act", "hidden_activation"] {
            let swish = |value: &Value| *value == "swish" || *value == "silu";
            self.agrees(key, swish, "\"swish\"")?;
        }
        let full = |value: &Value| {
            let kinds = value.as_array();
            kinds.is_some_and(|kinds| kinds.iter().all(|kind| kind == "full_attention"))
        };
        self.agrees("layer_types", full, "full_attention")?;
        for key in ["rope_parameters", "rope_scaling"] {
            self.check_rope(key, settings.rope_freq_constant)?;
        }
        Ok(())
    }

    /// Checks that a description of rotary embeddings says: base `theta`, without scaling.
    fn check_rope(&self, key: &str, theta: f64) -> Result<()> {
        let wrong = |name: &str, expected: &dyn fmt::Display, found: &Value| {
            let found = show(found);
            let problem = format!("`{name}` is {found}; only {expected} is supported");
            Error::config(self.path, key, problem)
        };
        let parameters = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Object(parameters)) => parameters,
            Some(other) => return Err(self.unexpected(key, "an object", other)),
        };
        let kind = ["rope_type", "type"].map(|name| parameters.get(name).map(|kind| (name, kind)));
        for (name, kind) in kind.into_iter().flatten() {
            // A linear scaling by 1 is none.
            if *kind != "default" && *kind != "linear" {
                return Err(wrong(name, &"\"default\"", kind));
            }
        }
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_null()) {
            let stated = match name.as_str() {
                "rope_type" | "type" => continue,
                "rope_theta" if value.as_f64() == Some(theta) => continue,
                "rope_theta" => {
                    let found = show(value);
                    let problem =
                        format!("`rope_theta` is {found}, but rope_freq_constant is {theta}");
                    return Err(Error::config(self.path, key, problem));
                }
                name => ROPE_FACTORS.iter().find(|(known, _)| *known == name),
            };
            match stated {
                Some((_, neutral)) if value.as_f64() == Some(*neutral) => {}
                Some((_, neutral)) => return Err(wrong(name, neutral, value)),
                None => {
                    let name = shorten(name);
                    let problem = format!("`{name}` is not supported, found {}", show(value));
                    return Err(Error::config(self.path, key, problem));
                }
            }
        }
        Ok(())
    }

    /// Checks that the two spellings of a key say the same.
    pub(super) fn check_pairs(&self) -> Result<()> {
        for (key, other) in [
            ("dtype", "torch_dtype"),
            ("quantization_config", "quantization"),
        ] {
            let stated = |key| self.map.get(key).filter(|value: &&Value| !value.is_null());
            let (Some(one), Some(two)) = (stated(key), stated(other)) else {
                continue;
            };
            let maps = [one, two].map(QuantizationMap::from_json);
            let same = match &maps {
                [Ok(one), Ok(two)] => one == two,
                _ => dtype_of(one) == dtype_of(two),
            };
            if !same {
                let [one, two] = [one, two].map(|value| shorten(&value.to_string()));
                let problem = format!("found {one}, which contradicts {other}: {two}");
                return Err(Error::config(self.path, key, problem));
            }
        }
        Ok(())
    }

    /// Checks that a key with the meaning of an OpenELM key, if present, has the same value.
    fn agrees(
        &self,
        key: &str,
        same: impl Fn(&Value) -> bool,
        stated: impl fmt::Display,
    ) -> Result<()> {
        match self
            .map
            .get(key)
            .filter(|value| !value.is_null() && !same(value))
        {
            None => Ok(()),
            Some(value) => {
                let problem = format!("found {}, but OpenELM's own key says {stated}", show(value));
                Err(Error::config(self.path, key, problem))
            }
        }
    }
}

/// The value of a `dtype` key, without PyTorch's prefix.
fn dtype_of(value: &Value) -> Value {
    match value.as_str().and_then(|name| name.strip_prefix("torch.")) {
        Some(name) => name.into(),
        None => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};
    use std::path::Path;

    /// The result of [`Keys::rest`] for a single key with OpenELM-270M's settings.
    fn rest(key: &str, value: Value) -> Result<Map<String, Value>> {
        let bytes = json!({ key: value }).to_string();
        Keys::parse(bytes.as_bytes(), Path::new("c"))?.rest(&LayerWiseConfig::default())
    }

    #[test]
    fn accepts_consistent_aliases_only() {
        for (key, same, other) in [
            ("tie_word_embeddings", json!(true), json!(false)),
            ("hidden_size", json!(1280), json!(1281)),
            ("num_hidden_layers", json!(16), json!("16")),
            ("max_position_embeddings", json!(2048), json!(4096)),
            ("rope_theta", json!(10000), json!(500000.0)),
            ("hidden_act", json!("silu"), json!("gelu")),
            ("hidden_activation", json!("swish"), json!("relu")),
            ("n_layer", json!(16), json!(15)),
            ("n_embd", json!(1280.0), json!(128)),
            ("norm_eps", json!(1e-6), json!(1e-5)),
            ("use_qk_norm", json!(true), json!(false)),
            ("partial_rotary_factor", json!(1.0), json!(0.5)),
            (
                "layer_types",
                json!(["full_attention", "full_attention"]),
                json!(["full_attention", "sliding_attention"]),
            ),
        ] {
            assert!(rest(key, same).is_ok(), "{key}");
            let message = rest(key, other).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`: found")), "{message}");
        }
        assert_eq!(
            rest("tie_word_embeddings", json!(false))
                .unwrap_err()
                .to_string(),
            "c: `tie_word_embeddings`: found false, but OpenELM's own key says true",
        );
    }

    #[test]
    fn accepts_rotary_embeddings_without_scaling_only() {
        for value in [
            json!(null),
            json!({}),
            json!({"rope_type": "default", "rope_theta": 10000.0}),
            json!({"type": "linear", "factor": 1.0, "attention_factor": null}),
        ] {
            for key in ["rope_parameters", "rope_scaling"] {
                assert_eq!(rest(key, value.clone()).unwrap()[key], value);
            }
        }
        for (value, expected) in [
            (
                json!({"rope_theta": 500000.0}),
                "`rope_theta` is 500000.0, but rope_freq_constant is 10000",
            ),
            (
                json!({"rope_type": "yarn"}),
                "`rope_type` is \"yarn\"; only \"default\" is supported",
            ),
            (
                json!({"type": "linear", "factor": 2.0}),
                "`factor` is 2.0; only 1 is supported",
            ),
            (
                json!({"full_attention": {"rope_theta": 10000.0}}),
                "`full_attention` is not supported, found an object",
            ),
            (json!("yarn"), "expected an object, found \"yarn\""),
        ] {
            let message = rest("rope_parameters", value).unwrap_err().to_string();
            assert_eq!(message, format!("c: `rope_parameters`: {expected}"));
        }
    }

    #[test]
    fn accepts_consistent_pairs() {
        for text in [
            r#"{"dtype": "float16", "torch_dtype": "torch.float16"}"#,
            r#"{"dtype": "float16", "torch_dtype": null}"#,
            r#"{"quantization": {"bits": 4, "group_size": 64},
                "quantization_config": {"group_size": 64, "bits": 4, "mode": "affine"}}"#,
            r#"{"quantization": {"bits": 4, "group_size": 64}, "quantization_config": null}"#,
        ] {
            let keys = Keys::parse(text.as_bytes(), Path::new("c")).unwrap();
            keys.rest(&LayerWiseConfig::default()).unwrap();
        }
    }

    #[test]
    fn rejects_contradicting_aliases() {
        for text in [
            r#"{"dtype": "float16", "torch_dtype": "bfloat16"}"#,
            r#"{"quantization": {"bits": 4}, "quantization_config": {"bits": 8}}"#,
            r#"{"quantization": {"bits": 4, "group_size": 64},
                "quantization_config": {"bits": 8, "group_size": 64}}"#,
        ] {
            let keys = Keys::parse(text.as_bytes(), Path::new("c")).unwrap();
            let message = keys
                .rest(&LayerWiseConfig::default())
                .unwrap_err()
                .to_string();
            assert!(message.contains("contradicts"), "{message}");
        }
    }
}
