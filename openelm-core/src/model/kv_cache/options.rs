//! Options of a key-value cache, with mlx-lm's names and defaults.

use crate::{
    error::{Error, Result},
    mlx::{Quantization, QuantizationMode},
};

/// Kind of a key-value cache. The default is a cache that grows with the sequence and has the
/// model's dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheOptions {
    /// Number of positions in a rotating cache: the first [`keep`](Self::keep) and the last ones.
    /// The sequence can then be longer than the model's context. `None`, the default, keeps all.
    pub max_kv_size: Option<usize>,
    /// Number of first positions that a rotating cache keeps. Default 4.
    pub keep: usize,
    /// Bits per number of quantised keys and values: 2, 4 or 8. `None`, the default, keeps the
    /// model's dtype.
    pub kv_bits: Option<usize>,
    /// Numbers that share a scale in a quantised cache: 32, 64 or 128, a divisor of the model's
    /// `head_dim`. Default 64.
    pub kv_group_size: usize,
    /// Number of positions from which a cache is quantised. The pass that reaches it computes with
    /// the model's dtype. Default 5000.
    pub quantized_kv_start: usize,
}

impl Default for KvCacheOptions {
    fn default() -> Self {
        Self {
            max_kv_size: None,
            keep: 4,
            kv_bits: None,
            kv_group_size: 64,
            quantized_kv_start: 5000,
        }
    }
}

/// Bits per number that pack into whole words.
const BITS: [usize; 3] = [2, 4, 8];

impl KvCacheOptions {
    /// Checks the ranges and combinations.
    ///
    /// # Errors
    /// [`Error::Option`] with the option out of range, or for `kv_bits` with `max_kv_size`: a
    /// rotating cache cannot be quantised.
    pub fn check(&self) -> Result<()> {
        if let Some(size) = self.max_kv_size {
            let largest = i32::MAX as usize;
            if size <= self.keep || size > largest {
                let least = self.keep.saturating_add(1);
                let problem = format!(
                    "expected a number from {least}, one more than the kept first tokens, to \
                     {largest}, found {size}"
                );
                return Err(Error::option("max_kv_size", problem));
            }
            if self.kv_bits.is_some() {
                let problem = "a rotating cache cannot be quantised";
                return Err(Error::option("kv_bits", problem));
            }
        }
        self.quantization().map(drop)
    }

    /// Checks the options for a model with heads of `head_dim` numbers.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`Error::Option`] for a `kv_group_size` that does not divide
    /// `head_dim`.
    pub(crate) fn check_for(&self, head_dim: usize) -> Result<()> {
        self.check()?;
        match self.quantization()? {
            Some(quantization) if !quantization.fits(head_dim) => {
                let problem = format!(
                    "expected a divisor of the model's head_dim {head_dim}, found {}",
                    self.kv_group_size
                );
                Err(Error::option("kv_group_size", problem))
            }
            _ => Ok(()),
        }
    }

    /// The format of quantised keys and values, if there are any.
    pub(crate) fn quantization(&self) -> Result<Option<Quantization>> {
        let Some(bits) = self.kv_bits else {
            return Ok(None);
        };
        if !BITS.contains(&bits) {
            let problem = format!("expected one of {BITS:?}, found {bits}");
            return Err(Error::option("kv_bits", problem));
        }
        let group_size = self.kv_group_size;
        let quantization =
            Quantization::new(QuantizationMode::Affine, Some(bits), Some(group_size));
        let groups = |_| {
            let problem = format!("expected one of [32, 64, 128], found {group_size}");
            Error::option("kv_group_size", problem)
        };
        quantization.map(Some).map_err(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_out_of_range_is_named() {
        let default = KvCacheOptions::default();
        default.check_for(16).unwrap();
        let quantized = KvCacheOptions {
            kv_bits: Some(4),
            ..default
        };
        quantized.check_for(64).unwrap();
        for (options, expected) in [
            (
                KvCacheOptions {
                    max_kv_size: Some(4),
                    ..default
                },
                "max_kv_size: expected a number from 5, one more than the kept first tokens, to \
                 2147483647, found 4",
            ),
            (
                KvCacheOptions {
                    max_kv_size: Some(0),
                    keep: 0,
                    ..default
                },
                "max_kv_size: expected a number from 1, one more than the kept first tokens, to \
                 2147483647, found 0",
            ),
            (
                KvCacheOptions {
                    max_kv_size: Some(16),
                    ..quantized
                },
                "kv_bits: a rotating cache cannot be quantised",
            ),
            (
                KvCacheOptions {
                    kv_bits: Some(3),
                    ..default
                },
                "kv_bits: expected one of [2, 4, 8], found 3",
            ),
            (
                KvCacheOptions {
                    kv_group_size: 48,
                    ..quantized
                },
                "kv_group_size: expected one of [32, 64, 128], found 48",
            ),
            (
                KvCacheOptions {
                    kv_group_size: 128,
                    ..quantized
                },
                "kv_group_size: expected a divisor of the model's head_dim 64, found 128",
            ),
        ] {
            let error = options.check_for(64).unwrap_err().to_string();
            assert_eq!(error, expected);
        }
    }
}
