//! Options of the key-value cache, with mlx-lm's names.

use openelm_core::generation::KvCacheOptions;

use crate::{error::Error, given::Given};

/// The kind of the key-value cache.
#[derive(clap::Args)]
pub(crate) struct KvCacheArgs {
    /// Keep the first 4 positions and the last ones, N in all; the text can then be longer than the
    /// model's context [default: keep all]
    #[arg(long, value_name = "N")]
    max_kv_size: Option<usize>,

    /// Quantise keys and values to 2, 4 or 8 bits [default: no]
    #[arg(long, value_name = "N")]
    kv_bits: Option<usize>,

    /// With --kv-bits, numbers that share a scale: 32, 64 or 128 [default: 64]
    #[arg(long, value_name = "N")]
    kv_group_size: Option<usize>,

    /// With --kv-bits, quantise from this number of positions [default: 5000]
    #[arg(long, value_name = "N")]
    quantized_kv_start: Option<usize>,
}

impl KvCacheArgs {
    /// Checks the options before a model loads; `continues` a prompt cache that may be quantised.
    pub(crate) fn check(&self, given: &Given, continues: bool) -> Result<(), Error> {
        let plain = self.kv_bits.is_none() && !continues;
        let names = ["kv-group-size", "quantized-kv-start"];
        given.check(&[(plain, &names, "without --kv-bits")])?;
        Ok(self.over(KvCacheOptions::default()).check()?)
    }

    /// Refuses --kv-bits if a text in a `context` of the model never reaches the start of the
    /// quantisation; `cache` is the kind of a prompt cache.
    pub(crate) fn check_start(&self, cache: KvCacheOptions, context: usize) -> Result<(), Error> {
        let options = self.over(cache);
        options.check()?;
        let start = options.quantized_kv_start;
        if self.kv_bits.is_none() || cache.kv_bits.is_some() || start < context {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "--kv-bits: no effect: --quantized-kv-start is {start}, the model's context {context}"
        )))
    }

    /// The given options over those of `cache`.
    pub(crate) fn over(&self, cache: KvCacheOptions) -> KvCacheOptions {
        KvCacheOptions {
            max_kv_size: self.max_kv_size.or(cache.max_kv_size),
            kv_bits: self.kv_bits.or(cache.kv_bits),
            kv_group_size: self.kv_group_size.unwrap_or(cache.kv_group_size),
            quantized_kv_start: self.quantized_kv_start.unwrap_or(cache.quantized_kv_start),
            ..cache
        }
    }
}
