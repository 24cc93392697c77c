//! MLX's weight quantisation: the format of a matrix, and the quantised matrices of a model.
//!
//! In a checkpoint a quantised matrix `X` is `X.weight` (bits packed into u32), `X.scales` and,
//! in the affine mode, `X.biases`; the `quantization` block of `config.json` describes them, with
//! exceptions per layer. This is mlx-lm's format.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    json::without_null,
};

/// The representation of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuantizationMode {
    /// Integers of 2 to 8 bits with a scale and a bias per group.
    Affine,
    /// OCP microscaling 4-bit floats, groups of 32.
    Mxfp4,
    /// OCP microscaling 8-bit floats, groups of 32.
    Mxfp8,
    /// NVIDIA's 4-bit floats, groups of 16.
    Nvfp4,
}

impl QuantizationMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }
}

impl std::str::FromStr for QuantizationMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| {
                Error::option(
                    "mode",
                    format!("expected affine, mxfp4, mxfp8 or nvfp4, found {name}"),
                )
            })
    }
}

/// The quantisation of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    mode: QuantizationMode,
    bits: usize,
    group_size: usize,
}

impl Quantization {
    /// Checks a quantisation; `None`: the bits (affine: 4) and group size (affine: 64) of the mode.
    ///
    /// # Errors
    /// [`Error::Option`] if MLX does not support it: affine takes 2, 3, 4, 5, 6 or 8 bits in
    /// groups of 32, 64 or 128; each other mode has one format.
    pub fn new(
        mode: QuantizationMode,
        bits: Option<usize>,
        group_size: Option<usize>,
    ) -> Result<Self> {
        let (all_bits, groups, default_bits, default_group): (&[usize], &[usize], _, _) = match mode
        {
            QuantizationMode::Affine => (&[2, 3, 4, 5, 6, 8], &[32, 64, 128], 4, 64),
            QuantizationMode::Mxfp4 => (&[4], &[32], 4, 32),
            QuantizationMode::Mxfp8 => (&[8], &[32], 8, 32),
            QuantizationMode::Nvfp4 => (&[4], &[16], 4, 16),
        };
        let check = |option, value, allowed: &[usize]| {
            if allowed.contains(&value) {
                return Ok(value);
            }
            let name = mode.name();
            let problem = format!("{name} takes one of {allowed:?}, found {value}");
            Err(Error::option(option, problem))
        };
        Ok(Self {
            mode,
            bits: check("bits", bits.unwrap_or(default_bits), all_bits)?,
            group_size: check("group_size", group_size.unwrap_or(default_group), groups)?,
        })
    }

    /// The representation of numbers.
    pub fn mode(&self) -> QuantizationMode {
        self.mode
    }

    /// Bits per number.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Numbers that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// True if rows of `width` numbers can be quantised.
    pub fn fits(&self, width: usize) -> bool {
        width.is_multiple_of(self.group_size)
    }

    /// Shape of the quantised matrix, u32, of `rows` rows of `width` numbers.
    pub(crate) fn packed_shape(&self, rows: usize, width: usize) -> [usize; 2] {
        [rows, width * self.bits / 32]
    }

    /// Shape of the scales and, in the affine mode, of the biases.
    pub(crate) fn scales_shape(&self, rows: usize, width: usize) -> [usize; 2] {
        [rows, width / self.group_size]
    }

    /// True if groups have biases. Otherwise the scales are bytes.
    pub(crate) fn has_biases(&self) -> bool {
        self.mode == QuantizationMode::Affine
    }

    /// The settings as an object of `config.json`.
    pub fn to_json(&self) -> Value {
        json!({ "group_size": self.group_size, "bits": self.bits, "mode": self.mode.name() })
    }

    fn from_json(block: &Map<String, Value>) -> Result<Self, String> {
        let number = |key: &str| match block.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number as usize)),
                None => Err(format!("`{key}`: expected a whole number, found {value}")),
            },
        };
        let mode = match block.get("mode") {
            None | Some(Value::Null) => QuantizationMode::Affine,
            Some(Value::String(name)) => name.parse().map_err(|error: Error| error.to_string())?,
            Some(value) => return Err(format!("`mode`: expected a name, found {value}")),
        };
        let (bits, group_size) = (number("bits")?, number("group_size")?);
        Self::new(mode, bits, group_size).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            QuantizationMode::Affine => {
                write!(f, "{} bits in groups of {}", self.bits, self.group_size)
            }
            mode => f.write_str(mode.name()),
        }
    }
}

/// The quantised matrices of a model: the `quantization` block of `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationMap {
    default: Quantization,
    /// Exceptions by the matrix's name without `.weight`; `None` is not quantised.
    layers: BTreeMap<String, Option<Quantization>>,
}

impl QuantizationMap {
    /// The same quantisation for every matrix.
    pub fn uniform(default: Quantization) -> Self {
        Self {
            default,
            layers: BTreeMap::new(),
        }
    }

    /// Adds an exception for the matrix `name` (its tensor's name without `.weight`).
    pub fn set(&mut self, name: &str, quantization: Option<Quantization>) {
        if quantization == Some(self.default) {
            self.layers.remove(name);
        } else {
            self.layers.insert(name.into(), quantization);
        }
    }

    /// The quantisation of the matrix `name`; `None` if it is not quantised.
    pub fn layer(&self, name: &str) -> Option<Quantization> {
        self.layers.get(name).copied().unwrap_or(Some(self.default))
    }

    /// The quantisation of matrices without an exception.
    pub fn default_quantization(&self) -> Quantization {
        self.default
    }

    /// Reads the `quantization` block.
    ///
    /// # Errors
    /// The problem, without the file's name.
    pub(crate) fn from_json(block: &Value) -> Result<Self, String> {
        let Value::Object(block) = without_null(block.clone()) else {
            return Err(format!("expected an object, found {block}"));
        };
        if let Some(method) = block.get("quant_method").filter(|method| !method.is_null()) {
            return Err(format!("`quant_method` {method} is not MLX's format"));
        }
        for key in ["group_size", "bits"] {
            if !block.contains_key(key) {
                return Err(format!("`{key}` is missing"));
            }
        }
        let mut map = Self::uniform(Quantization::from_json(&block)?);
        for (name, value) in &block {
            match value {
                Value::Object(layer) => {
                    let layer = Quantization::from_json(layer)
                        .map_err(|problem| format!("`{name}`: {problem}"))?;
                    map.layers.insert(name.clone(), Some(layer));
                }
                Value::Bool(true) => {
                    map.layers.insert(name.clone(), Some(map.default));
                }
                Value::Bool(false) => {
                    map.layers.insert(name.clone(), None);
                }
                // Not stated.
                Value::Null => {}
                _ if ["group_size", "bits", "mode"].contains(&name.as_str()) => {}
                _ => {
                    return Err(format!(
                        "`{name}`: expected a layer's settings, found {value}"
                    ));
                }
            }
        }
        Ok(map)
    }

    /// The block as in `config.json`.
    pub fn to_json(&self) -> Value {
        let mut block = self.default.to_json();
        for (name, layer) in &self.layers {
            block[name] = layer.map_or(Value::Bool(false), |layer| layer.to_json());
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_mlx_packings_only() {
        use QuantizationMode::{Affine, Mxfp4};
        let message = |mode, bits, group| {
            Quantization::new(mode, Some(bits), Some(group))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(Affine, 7, 64),
            "bits: affine takes one of [2, 3, 4, 5, 6, 8], found 7"
        );
        assert_eq!(
            message(Affine, 4, 48),
            "group_size: affine takes one of [32, 64, 128], found 48"
        );
        assert_eq!(
            message(Mxfp4, 8, 32),
            "bits: mxfp4 takes one of [4], found 8"
        );
        let mxfp4 = Quantization::new(Mxfp4, None, None).unwrap();
        assert_eq!((mxfp4.bits(), mxfp4.group_size()), (4, 32));
    }

    #[test]
    fn packed_shapes() {
        let three = Quantization::new(QuantizationMode::Affine, Some(3), Some(32)).unwrap();
        assert_eq!(three.packed_shape(10, 128), [10, 12]);
        assert_eq!(three.scales_shape(10, 128), [10, 4]);
        assert!(three.fits(96) && !three.fits(80));
    }

    #[test]
    fn mlx_lm_blocks_round_trip() {
        let block = json!({
            "group_size": 64, "bits": 4, "mode": "affine",
            "transformer.layers.0.ffn.proj_2": { "group_size": 64, "bits": 6, "mode": "affine" },
            "transformer.token_embeddings": false,
        });
        let map = QuantizationMap::from_json(&block).unwrap();
        assert_eq!(
            map.layer("transformer.layers.0.ffn.proj_2").unwrap().bits(),
            6
        );
        assert_eq!(map.layer("transformer.token_embeddings"), None);
        assert_eq!(
            map.layer("transformer.layers.1.ffn.proj_2").unwrap().bits(),
            4
        );
        assert_eq!(map.to_json(), block);
    }

    #[test]
    fn null_is_not_stated() {
        let block = json!({
            "group_size": 64, "bits": 4, "mode": null, "quant_method": null,
            "transformer.token_embeddings": null,
        });
        let map = QuantizationMap::from_json(&block).unwrap();
        let plain = QuantizationMap::from_json(&json!({ "group_size": 64, "bits": 4 })).unwrap();
        assert_eq!(map, plain);
    }

    #[test]
    fn rejects_malformed_blocks() {
        let problem = |block| QuantizationMap::from_json(&block).unwrap_err();
        assert_eq!(problem(json!(4)), "expected an object, found 4");
        assert_eq!(problem(json!({ "bits": 4 })), "`group_size` is missing");
        assert!(problem(json!({ "bits": -1, "group_size": 64 })).starts_with("`bits`: "));
        assert!(problem(json!({ "bits": 9, "group_size": 64 })).starts_with("bits: "));
        let awq = json!({ "quant_method": "awq", "bits": 4, "group_size": 64 });
        assert_eq!(problem(awq), "`quant_method` \"awq\" is not MLX's format");
        let layer = json!({ "bits": 4, "group_size": 64, "x": { "bits": 1, "group_size": 64 } });
        assert!(problem(layer).starts_with("`x`: bits: "));
    }
}
