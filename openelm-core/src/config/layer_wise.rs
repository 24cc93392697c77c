//! The settings of a layer-wise scaled OpenELM, and their ranges.
//!
//! The names are Apple's in `config.json`. The upper bounds keep every tensor within the 32-bit
//! shapes of MLX and limit every allocation; the released models stay far below them.

use std::{fmt::Display, ops::RangeInclusive, path::Path};

use super::scaling::{Multipliers, ffn_dim, round2};
use crate::error::{Error, Result};

/// The settings from which the heads and widths of a layer-wise scaled OpenELM are computed.
///
/// The defaults are the values of the released models.
///
/// ```
/// use openelm_core::{Config, config::LayerWiseConfig};
///
/// let small = LayerWiseConfig {
///     model_dim: 192,
///     num_transformer_layers: 6,
///     head_dim: 32,
///     num_gqa_groups: Some(2),
///     ffn_dim_divisor: 64,
///     vocab_size: 2048,
///     ..LayerWiseConfig::default()
/// };
/// assert_eq!(Config::layer_wise(small)?.parameter_count(), 2_497_344);
/// # Ok::<(), openelm_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWiseConfig {
    /// Width of the residual stream, 1 to 65,536; default 1280.
    pub model_dim: usize,
    /// Number of layers, 1 to 1024; default 16.
    pub num_transformer_layers: usize,
    /// Width of a head, even, 2 to 1024; default 64.
    pub head_dim: usize,
    /// Query heads per KV head, 1 to 1024; default 4. `None`: one KV head per query head, an even
    /// number.
    pub num_gqa_groups: Option<usize>,
    /// Width of all query heads over `model_dim`, 0.01 to 64; default 0.5 to 1.0. A list with one
    /// entry per layer is not supported here.
    pub qkv_multipliers: Multipliers,
    /// Inner width of the FFN over `model_dim`, 0.01 to 64; default 0.5 to 4.0.
    pub ffn_multipliers: Multipliers,
    /// Divisor of the FFN's inner width, 1 to 65,536; default 256.
    pub ffn_dim_divisor: usize,
    /// Rows of the embedding, 1 to 2,097,152; default 32,000.
    pub vocab_size: usize,
    /// Context length of the training in tokens, 1 to 16,777,216; default 2048.
    pub max_context_length: usize,
    /// True if the FFN is gated; default true.
    pub ffn_with_glu: bool,
    /// True if queries and keys are normalised by RMSNorm; default true.
    pub normalize_qk_projections: bool,
    /// True if the output head is the embedding; default true.
    pub share_input_output_layers: bool,
    /// The epsilon of RMSNorm, added to the mean square, 1e-12 to 0.1; default 1e-6.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies, 1 to 1e12; default 10,000.
    pub rope_freq_constant: f64,
    /// Initial length of the rotary tables in positions, 1 to 16,777,216; default 4096. Not a
    /// limit.
    pub rope_max_length: usize,
    /// Id of the token that starts a text, below `vocab_size`; default 1.
    pub bos_token_id: usize,
    /// Id of the token that ends a text, below `vocab_size`; default 2.
    pub eos_token_id: usize,
}

impl Default for LayerWiseConfig {
    fn default() -> Self {
        Self {
            model_dim: 1280,
            num_transformer_layers: 16,
            head_dim: 64,
            num_gqa_groups: Some(4),
            qkv_multipliers: Multipliers::Range(0.5, 1.0),
            ffn_multipliers: Multipliers::Range(0.5, 4.0),
            ffn_dim_divisor: 256,
            vocab_size: 32_000,
            max_context_length: 2048,
            ffn_with_glu: true,
            normalize_qk_projections: true,
            share_input_output_layers: true,
            rms_norm_eps: 1e-6,
            rope_freq_constant: 10_000.0,
            rope_max_length: 4096,
            bos_token_id: 1,
            eos_token_id: 2,
        }
    }
}

pub(crate) const MODEL_DIM: RangeInclusive<usize> = 1..=65_536;
pub(crate) const LAYERS: RangeInclusive<usize> = 1..=1024;
pub(crate) const HEAD_DIM: RangeInclusive<usize> = 2..=1024;
pub(crate) const GQA_GROUPS: RangeInclusive<usize> = 1..=1024;
pub(crate) const HEADS: RangeInclusive<usize> = 1..=65_536;
pub(crate) const FFN_DIM_DIVISOR: RangeInclusive<usize> = 1..=65_536;
pub(crate) const VOCAB_SIZE: RangeInclusive<usize> = 1..=1 << 21;
/// Rotary angles are computed in f32, which counts positions exactly up to here.
pub(crate) const POSITIONS: RangeInclusive<usize> = 1..=1 << 24;
/// The smallest multiplier is not zero after rounding to two decimals.
pub(crate) const MULTIPLIER: RangeInclusive<f64> = 0.01..=64.0;
pub(crate) const RMS_NORM_EPS: RangeInclusive<f64> = 1e-12..=0.1;
pub(crate) const ROPE_FREQ_CONSTANT: RangeInclusive<f64> = 1.0..=1e12;

impl LayerWiseConfig {
    /// Checks every setting against its range; errors name `path`.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let groups = self.num_gqa_groups.unwrap_or(1);
        for (key, value, range) in [
            ("model_dim", self.model_dim, MODEL_DIM),
            (
                "num_transformer_layers",
                self.num_transformer_layers,
                LAYERS,
            ),
            ("head_dim", self.head_dim, HEAD_DIM),
            ("num_gqa_groups", groups, GQA_GROUPS),
            ("ffn_dim_divisor", self.ffn_dim_divisor, FFN_DIM_DIVISOR),
            ("vocab_size", self.vocab_size, VOCAB_SIZE),
            ("max_context_length", self.max_context_length, POSITIONS),
            ("rope_max_length", self.rope_max_length, POSITIONS),
        ] {
            within(path, key, "an integer", &range, value)?;
        }
        let (eps, base) = (self.rms_norm_eps, self.rope_freq_constant);
        within(path, "rms_norm_eps", "a number", &RMS_NORM_EPS, eps)?;
        within(
            path,
            "rope_freq_constant",
            "a number",
            &ROPE_FREQ_CONSTANT,
            base,
        )?;
        for (key, id) in [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
        ] {
            if id >= self.vocab_size {
                let vocab = self.vocab_size;
                let problem = format!("expected an id below vocab_size {vocab}, found {id}");
                return Err(Error::config(path, key, problem));
            }
        }
        if !self.head_dim.is_multiple_of(2) {
            let width = self.head_dim;
            let problem = format!("expected an even width for rotary pairs, found {width}");
            return Err(Error::config(path, "head_dim", problem));
        }
        if let Multipliers::PerLayer(list) = &self.qkv_multipliers {
            let length = list.len();
            let problem = format!("expected a number or a list of 2, found a list of {length}");
            return Err(Error::config(path, "qkv_multipliers", problem));
        }
        check_multipliers(&self.qkv_multipliers, path, "qkv_multipliers")?;
        check_multipliers(&self.ffn_multipliers, path, "ffn_multipliers")?;
        match &self.ffn_multipliers {
            Multipliers::PerLayer(list) => self.check_ffn_list(list, path),
            _ => Ok(()),
        }
    }

    /// Checks a list of FFN multipliers, one per layer.
    fn check_ffn_list(&self, list: &[f64], path: &Path) -> Result<()> {
        let fault = |problem| Err(Error::config(path, "ffn_multipliers", problem));
        let (layers, length) = (self.num_transformer_layers, list.len());
        if length != layers {
            return fault(format!(
                "expected a number or a list of 2 or {layers} (num_transformer_layers), found a \
                 list of {length}"
            ));
        }
        if length != 2 {
            return Ok(());
        }
        // With two layers a list is also the ends of a range, which Hugging Face rounds.
        let width = |value| ffn_dim(self.model_dim, self.ffn_dim_divisor, value);
        for &value in list {
            let (listed, rounded) = (width(value), width(round2(value)));
            if listed != rounded {
                return fault(format!(
                    "{value} is a width of {listed} in a list and of {rounded} at the end of a \
                     range, expected two decimals"
                ));
            }
        }
        Ok(())
    }
}

fn within<T: Display + PartialOrd>(
    path: &Path,
    key: &str,
    kind: &str,
    range: &RangeInclusive<T>,
    found: T,
) -> Result<()> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(Error::config(path, key, outside(kind, range, found)))
}

/// The text for a value outside its range.
pub(crate) fn outside<T: Display>(
    kind: &str,
    range: &RangeInclusive<T>,
    found: impl Display,
) -> String {
    format!(
        "expected {kind} from {} to {}, found {found}",
        range.start(),
        range.end()
    )
}

fn check_multipliers(multipliers: &Multipliers, path: &Path, key: &str) -> Result<()> {
    let values: &[f64] = match multipliers {
        Multipliers::Uniform(value) => &[*value],
        Multipliers::Range(first, last) => &[*first, *last],
        Multipliers::PerLayer(list) => list,
    };
    for &value in values {
        within(path, key, "numbers", &MULTIPLIER, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::config::Config;

    #[test]
    fn defaults_are_within_their_ranges() {
        assert!(
            LayerWiseConfig::default()
                .check(Path::new("config"))
                .is_ok()
        );
    }

    type Spoil = fn(&mut LayerWiseConfig);

    #[rustfmt::skip]
    #[test]
    fn rejects_settings_out_of_range() {
        let cases: [(Spoil, &str); 19] = [
            (|s| s.model_dim = 0, "`model_dim`: expected an integer from 1 to 65536, found 0"),
            (|s| s.model_dim = 65_537,
             "`model_dim`: expected an integer from 1 to 65536, found 65537"),
            (|s| s.num_transformer_layers = usize::MAX,
             "`num_transformer_layers`: expected an integer from 1 to 1024"),
            (|s| s.head_dim = 1026, "`head_dim`: expected an integer from 2 to 1024, found 1026"),
            (|s| s.head_dim = 63, "`head_dim`: expected an even width for rotary pairs, found 63"),
            (|s| s.num_gqa_groups = Some(0),
             "`num_gqa_groups`: expected an integer from 1 to 1024, found 0"),
            (|s| s.ffn_dim_divisor = 0,
             "`ffn_dim_divisor`: expected an integer from 1 to 65536, found 0"),
            (|s| s.vocab_size = 0, "`vocab_size`: expected an integer from 1 to 2097152, found 0"),
            (|s| s.max_context_length = 0,
             "`max_context_length`: expected an integer from 1 to 16777216, found 0"),
            (|s| s.rope_max_length = 1 << 25,
             "`rope_max_length`: expected an integer from 1 to 16777216, found 33554432"),
            (|s| s.bos_token_id = 32_000,
             "`bos_token_id`: expected an id below vocab_size 32000, found 32000"),
            (|s| s.eos_token_id = 32_001,
             "`eos_token_id`: expected an id below vocab_size 32000, found 32001"),
            (|s| s.rms_norm_eps = f64::NAN,
             "`rms_norm_eps`: expected a number from 0.000000000001 to 0.1, found NaN"),
            (|s| s.rope_freq_constant = f64::INFINITY,
             "`rope_freq_constant`: expected a number from 1 to 1000000000000, found inf"),
            (|s| s.qkv_multipliers = Multipliers::Uniform(f64::NAN),
             "`qkv_multipliers`: expected numbers from 0.01 to 64, found NaN"),
            (|s| s.qkv_multipliers = Multipliers::PerLayer(vec![1.0; 16]),
             "`qkv_multipliers`: expected a number or a list of 2, found a list of 16"),
            (|s| s.ffn_multipliers = Multipliers::Range(0.5, -1.0),
             "`ffn_multipliers`: expected numbers from 0.01 to 64, found -1"),
            (|s| s.ffn_multipliers = Multipliers::PerLayer(vec![1.0; 3]),
             "`ffn_multipliers`: expected a number or a list of 2 or 16 (num_transformer_layers), \
              found a list of 3"),
            (|s| {
                s.num_transformer_layers = 2;
                s.ffn_multipliers = Multipliers::PerLayer(vec![1.096, 1.0]);
             },
             "`ffn_multipliers`: 1.096 is a width of 1280 in a list and of 1536 at the end of a \
              range, expected two decimals"),
        ];
        for (corrupt, problem) in cases {
            let mut settings = LayerWiseConfig::default();
            corrupt(&mut settings);
            let message = Config::layer_wise(settings).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config: {problem}")), "{message}");
        }
    }
}
