//! The bit width of each matrix: one for all, a mixed recipe, or rules by name.
//!
//! A recipe gives more bits to the layers of mlx-lm's `mixed_quant_predicate_builder`: the first
//! and last eighth, and every third between. OpenELM's `ffn.proj_2` corresponds to its `down_proj`,
//! `attn.qkv_proj`, which contains the values, to `v_proj`, and a tied embedding to `lm_head`.

use std::str::FromStr;

use regex::Regex;

use crate::{
    config::{
        Config,
        tensor_names::{EMBEDDING, HEAD, PROJ_2, QKV_PROJ, parse_layer},
    },
    error::{Error, Result},
    mlx::{Quantization, QuantizationMode},
};

/// A mixed recipe of mlx-lm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// 2 bits, and 6 bits for sensitive matrices.
    Mixed2_6,
    /// 3 and 4 bits.
    Mixed3_4,
    /// 3 and 6 bits.
    Mixed3_6,
    /// 4 and 6 bits.
    Mixed4_6,
}

impl Recipe {
    /// Low and high bits.
    fn bits(self) -> (usize, usize) {
        match self {
            Self::Mixed2_6 => (2, 6),
            Self::Mixed3_4 => (3, 4),
            Self::Mixed3_6 => (3, 6),
            Self::Mixed4_6 => (4, 6),
        }
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "mixed_2_6" => Self::Mixed2_6,
            "mixed_3_4" => Self::Mixed3_4,
            "mixed_3_6" => Self::Mixed3_6,
            "mixed_4_6" => Self::Mixed4_6,
            _ => {
                return Err(Error::option(
                    "recipe",
                    format!("expected mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6, found {name}"),
                ));
            }
        })
    }
}

/// Bits for the matrices whose names match a regular expression.
#[derive(Debug, Clone)]
pub struct LayerRule {
    name: Regex,
    bits: usize,
}

impl LayerRule {
    /// The rule of the matrix `stem` only (its tensor's name without `.weight`).
    pub(crate) fn exact(stem: &str, bits: usize) -> Result<Self> {
        format!("^{}$={bits}", regex::escape(stem)).parse()
    }
}

impl FromStr for LayerRule {
    type Err = Error;

    /// Reads `REGEX=BITS`.
    fn from_str(rule: &str) -> Result<Self> {
        let refuse = |problem: String| Error::option("layer", problem);
        let parts = rule.rsplit_once('=');
        let (name, bits) =
            parts.ok_or_else(|| refuse(format!("expected REGEX=BITS, found {rule}")))?;
        let bits = bits.parse();
        Ok(Self {
            bits: bits.map_err(|_| refuse(format!("expected a number of bits in {rule}")))?,
            name: Regex::new(name).map_err(|error| refuse(format!("{name}: {error}")))?,
        })
    }
}

/// The quantisation of a model.
#[derive(Debug, Clone)]
pub struct Quantize {
    /// The default quantisation of matrices.
    pub quantization: Quantization,
    /// Replaces the bits of `quantization`; affine only.
    pub recipe: Option<Recipe>,
    /// The first rule that matches a name overrides recipe and `quantization`.
    pub layers: Vec<LayerRule>,
}

impl Quantize {
    /// The same quantisation for every matrix.
    pub fn uniform(quantization: Quantization) -> Self {
        Self {
            quantization,
            recipe: None,
            layers: Vec::new(),
        }
    }

    /// The quantisation of most matrices.
    pub(super) fn default_quantization(&self) -> Result<Quantization> {
        match self.recipe {
            Some(recipe) => self.with_bits(recipe.bits().0),
            None => Ok(self.quantization),
        }
    }

    /// The quantisation of the matrix `name` (without `.weight`) with rows of `width` numbers;
    /// `None` if the rows do not divide into groups.
    pub(super) fn of(
        &self,
        config: &Config,
        name: &str,
        width: usize,
    ) -> Result<Option<Quantization>> {
        let rule = self.layers.iter().find(|rule| rule.name.is_match(name));
        let packing = match (rule, self.recipe) {
            (Some(rule), _) => self.with_bits(rule.bits).map_err(|error| match error {
                Error::Option {
                    option: "bits",
                    problem,
                } => Error::option("layer", format!("bits of {}: {problem}", rule.name)),
                other => other,
            })?,
            (None, Some(recipe)) => {
                let (low, high) = recipe.bits();
                self.with_bits(if deserves_more(config, name) {
                    high
                } else {
                    low
                })?
            }
            (None, None) => self.quantization,
        };
        Ok(Some(packing).filter(|packing| packing.fits(width)))
    }

    /// Refuses a rule that matches none of `matrices`.
    pub(super) fn check_rules<'a>(
        &self,
        matrices: impl Iterator<Item = &'a String> + Clone,
    ) -> Result<()> {
        let is_unused = |rule: &&LayerRule| !matrices.clone().any(|name| rule.name.is_match(name));
        match self.layers.iter().find(is_unused) {
            Some(rule) => Err(Error::option(
                "layer",
                format!("`{}` matches no matrix of this model", rule.name),
            )),
            None => Ok(()),
        }
    }

    fn with_bits(&self, bits: usize) -> Result<Quantization> {
        if self.quantization.mode() != QuantizationMode::Affine {
            return Err(Error::option(
                "mode",
                "recipes and rules by layer are of the affine mode only",
            ));
        }
        let group_size = self.quantization.group_size();
        Quantization::new(QuantizationMode::Affine, Some(bits), Some(group_size))
    }
}

fn deserves_more(config: &Config, name: &str) -> bool {
    if name == HEAD {
        return true;
    }
    if name == EMBEDDING {
        return config.share_input_output_layers();
    }
    let count = config.num_transformer_layers();
    let Some((index, PROJ_2 | QKV_PROJ)) = parse_layer(name) else {
        return false;
    };
    index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn recipes_follow_mlx_lm() {
        let quantize = Quantize {
            quantization: Quantization::new(QuantizationMode::Affine, None, None).unwrap(),
            recipe: Some(Recipe::Mixed3_6),
            layers: vec!["out_proj$=8".parse().unwrap()],
        };
        let config = Preset::Size270M.config();
        let bits = |name: &str| quantize.of(&config, name, 1280).unwrap().unwrap().bits();
        let high: Vec<usize> = (0..16)
            .filter(|i| bits(&format!("transformer.layers.{i}.ffn.proj_2")) == 6)
            .collect();
        assert_eq!(high, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(bits("transformer.token_embeddings"), 6);
        assert_eq!(bits("transformer.layers.0.ffn.proj_1"), 3);
        assert_eq!(bits("transformer.layers.0.attn.qkv_proj"), 6);
        assert_eq!(bits("transformer.layers.0.attn.out_proj"), 8);
        assert_eq!(quantize.of(&config, "lm_head", 80).unwrap(), None);
    }

    #[test]
    fn rejects_rules_without_effect_and_their_bits() {
        let error = |rule: &str| {
            let quantize = Quantize {
                layers: vec![rule.parse().unwrap()],
                ..Quantize::uniform(
                    Quantization::new(QuantizationMode::Affine, None, None).unwrap(),
                )
            };
            let config = Preset::Size270M.config();
            let names = ["transformer.layers.0.ffn.proj_2".to_owned()];
            let found = quantize.of(&config, &names[0], 1280);
            let error = found.and_then(|_| quantize.check_rules(names.iter()));
            error.err().map(|error| error.to_string())
        };
        assert_eq!(error("proj_2$=6"), None);
        for rule in ["proj_2=7", "proj_2=0", "proj_9=4", "^ffn=4", "attn=4"] {
            let message = error(rule).unwrap_or_default();
            assert!(message.starts_with("layer: "), "{rule}: {message}");
        }
    }

    #[test]
    fn rejects_invalid_rules() {
        let message = |rule: &str| rule.parse::<LayerRule>().unwrap_err().to_string();
        assert_eq!(message("ffn"), "layer: expected REGEX=BITS, found ffn");
        assert_eq!(
            message("ffn=x"),
            "layer: expected a number of bits in ffn=x"
        );
        assert!(message("(=4").starts_with("layer: ("));
    }
}
