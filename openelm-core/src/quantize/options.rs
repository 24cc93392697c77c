//! Options of a quantisation: values, defaults and ranges.

use std::{path::PathBuf, str::FromStr};

use crate::{
    convert::TokenizerChoice,
    error::{Error, Result},
    mlx::{Quantization, QuantizationMode},
};

/// Bits per weight that a mixture may use.
pub(super) const WIDTHS: [usize; 6] = [2, 3, 4, 5, 6, 8];

/// Options of [`quantize`](super::quantize()).
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeOptions {
    /// The method. Default [`Method::Dwq`].
    pub method: Method,
    /// The widths of the matrices. Default 4 bits for all.
    pub widths: Widths,
    /// Numbers that share a scale: 32, 64 or 128. Default 64.
    pub group_size: usize,
    /// Calibration text: jsonl, txt, gz, zst or parquet files, or folders of them.
    pub data: Vec<PathBuf>,
    /// Held-out text of the report. Default: the last sequences of the calibration text, which then
    /// are not used for calibration.
    pub valid: Vec<PathBuf>,
    /// Key of the text in JSON rows and parquet columns. Default `text`.
    pub text_key: String,
    /// Largest number of calibration sequences, the first ones of the text. Default 128.
    pub samples: usize,
    /// Largest number of held-out sequences. Default 16.
    pub valid_samples: usize,
    /// Tokens of a sequence. `None`, the default: 512, or the model's context if that is shorter.
    pub max_seq_length: Option<usize>,
    /// Share of the mean diagonal that is added to the diagonal of a Hessian, in (0, 1]. Default
    /// 0.01, as in GPTQ's code.
    pub damping: f64,
    /// DWQ: the method that makes its start, [`Method::Round`], [`Method::Gptq`] or
    /// [`Method::Awq`]. Default [`Method::Gptq`].
    pub start: Method,
    /// DWQ: passes over the calibration sequences. Default 4.
    pub epochs: usize,
    /// DWQ: sequences per step. Default 4.
    pub batch_size: usize,
    /// DWQ: Adam's learning rate as a share of a matrix's mean scale, in (0, 1]. It decays to 0 by
    /// half a cosine. Default 0.02.
    pub learning_rate: f64,
    /// DWQ: steps between saves of the progress. Default 20.
    pub save_every: usize,
    /// DWQ: seed of the order of the sequences. Default 0.
    pub seed: u64,
    /// The tokenizer of the result, which also encodes the texts. Default: the source's.
    pub tokenizer: TokenizerChoice,
    /// Largest size of a weight file, in bytes. Default 5 GB, as in mlx-lm.
    pub max_shard_bytes: u64,
    /// Replace an existing target. Default false.
    pub force: bool,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            method: Method::Dwq,
            widths: Widths::Uniform(4),
            group_size: 64,
            data: Vec::new(),
            valid: Vec::new(),
            text_key: "text".to_owned(),
            samples: 128,
            valid_samples: 16,
            max_seq_length: None,
            damping: 0.01,
            start: Method::Gptq,
            epochs: 4,
            batch_size: 4,
            learning_rate: 0.02,
            save_every: 20,
            seed: 0,
            tokenizer: TokenizerChoice::OfSource,
            max_shard_bytes: 5_000_000_000,
            force: false,
        }
    }
}

impl QuantizeOptions {
    /// Refuses options out of range.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        let refuse = |option, problem: String| Err(Error::option(option, problem));
        match self.widths {
            Widths::Uniform(bits) => {
                self.quantization(bits)?;
            }
            Widths::Target(bits) => {
                self.quantization(WIDTHS[0])?;
                if !(bits.is_finite() && bits > 0.0) {
                    return refuse("target_bits", format!("expected more than 0, found {bits}"));
                }
            }
        }
        for (option, value) in [
            ("samples", self.samples),
            ("valid_samples", self.valid_samples),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("save_every", self.save_every),
        ] {
            if value == 0 {
                return refuse(option, "expected 1 or more, found 0".into());
            }
        }
        if self.data.is_empty() {
            return refuse("data", "expected calibration text, found none".into());
        }
        for (option, value) in [
            ("damping", self.damping),
            ("learning_rate", self.learning_rate),
        ] {
            if !(value > 0.0 && value <= 1.0) {
                return refuse(
                    option,
                    format!("expected a number in (0, 1], found {value}"),
                );
            }
        }
        if self.start == Method::Dwq {
            return refuse("start", "expected round, gptq or awq, found dwq".into());
        }
        Ok(())
    }

    /// The affine quantisation to `bits` bits.
    pub(super) fn quantization(&self, bits: usize) -> Result<Quantization> {
        Quantization::new(QuantizationMode::Affine, Some(bits), Some(self.group_size))
    }

    /// The method that quantises the matrices, before any distillation.
    pub(super) fn first_method(&self) -> Method {
        match self.method {
            Method::Dwq => self.start,
            method => method,
        }
    }
}

/// A method of quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Rounding to the nearest number of MLX's grid, as `openelm convert -q` does.
    Round,
    /// GPTQ (arXiv 2210.17323): the error of each column is compensated by the next ones.
    Gptq,
    /// AWQ (arXiv 2306.00978): channels with large activations are scaled up before rounding.
    Awq,
    /// Distilled weight quantisation: the unquantised model is distilled into scales and biases,
    /// as in mlx-lm's `dwq`.
    Dwq,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 4] = [Self::Round, Self::Gptq, Self::Awq, Self::Dwq];

    /// `round`, `gptq`, `awq` or `dwq`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Gptq => "gptq",
            Self::Awq => "awq",
            Self::Dwq => "dwq",
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|method| method.name() == name).ok_or_else(|| {
            let problem = format!("expected round, gptq, awq or dwq, found {name}");
            Error::option("method", problem)
        })
    }
}

/// The number of bits of each matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Widths {
    /// The same for all matrices: 2, 3, 4, 5, 6 or 8.
    Uniform(usize),
    /// Chosen by the sensitivity of each matrix, for at most this number of bits per weight of the
    /// whole model, scales and norms included.
    Target(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_values_out_of_range() {
        let good = QuantizeOptions {
            data: vec!["text.jsonl".into()],
            ..QuantizeOptions::default()
        };
        good.check().unwrap();
        let change = |change: &dyn Fn(&mut QuantizeOptions)| {
            let mut options = good.clone();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        for (found, option) in [
            (change(&|o| o.widths = Widths::Uniform(7)), "bits"),
            (change(&|o| o.widths = Widths::Target(0.0)), "target_bits"),
            (
                change(&|o| o.widths = Widths::Target(f64::NAN)),
                "target_bits",
            ),
            (change(&|o| o.group_size = 48), "group_size"),
            (change(&|o| o.samples = 0), "samples"),
            (change(&|o| o.valid_samples = 0), "valid_samples"),
            (change(&|o| o.epochs = 0), "epochs"),
            (change(&|o| o.batch_size = 0), "batch_size"),
            (change(&|o| o.save_every = 0), "save_every"),
            (change(&|o| o.damping = 0.0), "damping"),
            (change(&|o| o.learning_rate = 1.5), "learning_rate"),
            (change(&|o| o.start = Method::Dwq), "start"),
            (change(&|o| o.data.clear()), "data"),
        ] {
            assert!(found.starts_with(&format!("{option}: ")), "{found}");
        }
    }
}
