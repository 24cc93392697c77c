//! Options of the sampling, for commands that generate text.

use std::str::FromStr;

use openelm_core::generation::Sampling;

use crate::{error::Error, given::Given};

/// Options of the sampling.
#[derive(clap::Args)]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 always picks the most likely token
    #[arg(
        long,
        alias = "temperature",
        default_value_t = Sampling::default().temperature,
        value_name = "T",
        allow_negative_numbers = true
    )]
    temp: f32,

    /// Sample from the K most likely tokens; 0 means all
    #[arg(long, default_value_t = Sampling::default().top_k, value_name = "K")]
    top_k: usize,

    /// Sample from the most likely tokens with a total probability of P, in (0, 1]
    #[arg(
        long,
        default_value_t = Sampling::default().top_p,
        value_name = "P",
        allow_negative_numbers = true
    )]
    top_p: f32,

    /// Drop tokens less likely than P times the most likely one, in [0, 1]
    #[arg(
        long,
        default_value_t = Sampling::default().min_p,
        value_name = "P",
        allow_negative_numbers = true
    )]
    min_p: f32,

    /// Sample from the tokens of most typical information with a total probability of P, in (0, 1]
    #[arg(
        long,
        alias = "typical",
        default_value_t = Sampling::default().typical_p,
        value_name = "P",
        allow_negative_numbers = true
    )]
    typical_p: f32,

    /// Drop tokens more than X standard deviations of the logits below the largest; 0 is off
    #[arg(
        long,
        alias = "top-nsigma",
        default_value_t = Sampling::default().top_n_sigma,
        value_name = "X",
        allow_negative_numbers = true
    )]
    top_n_sigma: f32,

    /// Probability of XTC at each token: drop all but the least likely of the tokens above
    /// --xtc-threshold
    #[arg(
        long,
        default_value_t = Sampling::default().xtc_probability,
        value_name = "P",
        allow_negative_numbers = true
    )]
    xtc_probability: f32,

    /// Probability above which XTC drops tokens, in [0, 0.5]
    #[arg(
        long,
        default_value_t = Sampling::default().xtc_threshold,
        value_name = "P",
        allow_negative_numbers = true
    )]
    xtc_threshold: f32,

    /// Repetition penalty as in Hugging Face Transformers; 1 is off, Apple's OpenELM examples use
    /// 1.2
    #[arg(
        long,
        default_value_t = Sampling::default().repetition_penalty,
        value_name = "R",
        allow_negative_numbers = true
    )]
    repetition_penalty: f32,

    /// Number of last tokens that the repetition penalty considers [default: all]
    #[arg(long, value_name = "N")]
    repetition_context_size: Option<usize>,

    /// Subtract X from the logits of tokens among the last
    #[arg(
        long,
        default_value_t = Sampling::default().presence_penalty,
        value_name = "X",
        allow_negative_numbers = true
    )]
    presence_penalty: f32,

    /// Number of last tokens that the presence penalty considers
    #[arg(long, default_value_t = Sampling::default().presence_context_size, value_name = "N")]
    presence_context_size: usize,

    /// Subtract X from the logits of tokens among the last, for each occurrence
    #[arg(
        long,
        default_value_t = Sampling::default().frequency_penalty,
        value_name = "X",
        allow_negative_numbers = true
    )]
    frequency_penalty: f32,

    /// Number of last tokens that the frequency penalty considers
    #[arg(long, default_value_t = Sampling::default().frequency_context_size, value_name = "N")]
    frequency_context_size: usize,

    /// Penalty of DRY for tokens that extend a repeated sequence; 0 is off
    #[arg(
        long,
        default_value_t = Sampling::default().dry_multiplier,
        value_name = "X",
        allow_negative_numbers = true
    )]
    dry_multiplier: f32,

    /// Growth of DRY's penalty with each token of the sequence
    #[arg(
        long,
        default_value_t = Sampling::default().dry_base,
        value_name = "X",
        allow_negative_numbers = true
    )]
    dry_base: f32,

    /// Length of the shortest sequence that DRY penalises, in tokens
    #[arg(long, default_value_t = Sampling::default().dry_allowed_length, value_name = "N")]
    dry_allowed_length: usize,

    /// Number of last tokens in which DRY searches [default: all]
    #[arg(long, value_name = "N")]
    dry_penalty_last_n: Option<usize>,

    /// String at which sequences of DRY begin anew, in place of newline, colon, quote and asterisk;
    /// may be repeated; `none` for none
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    dry_sequence_breaker: Vec<String>,

    /// Add a bias to the logit of a token, by its id, as in 15043+1.5; 15043-inf excludes the
    /// token; may be repeated
    #[arg(long, value_name = "ID(+/-)BIAS")]
    logit_bias: Vec<LogitBias>,

    /// Generate no end token among the first N tokens
    #[arg(long, default_value_t = Sampling::default().min_tokens, value_name = "N")]
    min_tokens: usize,

    /// Never generate this string; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    banned_string: Vec<String>,

    /// Begin the generated text with this string
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    forced_prefix: Option<String>,

    /// Random seed, for repeatable sampling [default: a new seed per run]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// The options, after a check of their ranges and effects. `given` has the options that the
    /// user gave.
    pub(crate) fn sampling(&self, given: &Given) -> Result<Sampling, Error> {
        let breakers = match &self.dry_sequence_breaker[..] {
            [] => Sampling::default().dry_sequence_breakers,
            [none] if none == "none" => Vec::new(),
            breakers => breakers.to_vec(),
        };
        let sampling = Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            repetition_penalty: self.repetition_penalty,
            repetition_context_size: self.repetition_context_size,
            presence_penalty: self.presence_penalty,
            presence_context_size: self.presence_context_size,
            frequency_penalty: self.frequency_penalty,
            frequency_context_size: self.frequency_context_size,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            dry_sequence_breakers: breakers,
            logit_bias: self
                .logit_bias
                .iter()
                .map(|bias| (bias.id, bias.bias))
                .collect(),
            min_tokens: self.min_tokens,
            banned_strings: self.banned_string.clone(),
            forced_prefix: self.forced_prefix.clone().unwrap_or_default(),
            seed: self.seed,
        };
        sampling.check()?;
        self.check_effects(given)?;
        Ok(sampling)
    }

    /// True if tokens are drawn at random.
    pub(crate) fn draws(&self) -> bool {
        self.temp > 0.0
    }

    /// Refuses options without effect.
    fn check_effects(&self, given: &Given) -> Result<(), Error> {
        // Without --temp the options are accepted, as in mlx-lm.
        let greedy = given.has("temp") && self.temp == 0.0;
        let reason = "with --temp 0, which always picks the most likely token";
        given.check(&[
            (greedy && self.top_k != 0, &["top-k"], reason),
            (greedy && self.top_p != 1.0, &["top-p"], reason),
            (greedy && self.min_p != 0.0, &["min-p"], reason),
            (greedy && self.typical_p != 1.0, &["typical-p"], reason),
            (greedy && self.top_n_sigma != 0.0, &["top-n-sigma"], reason),
            (
                greedy && self.xtc_probability != 0.0,
                &["xtc-probability"],
                reason,
            ),
            (greedy, &["seed"], reason),
            (
                self.xtc_probability == 0.0,
                &["xtc-threshold"],
                "without --xtc-probability",
            ),
            (
                self.repetition_penalty == 1.0,
                &["repetition-context-size"],
                "without --repetition-penalty",
            ),
            (
                self.presence_penalty == 0.0,
                &["presence-context-size"],
                "without --presence-penalty",
            ),
            (
                self.frequency_penalty == 0.0,
                &["frequency-context-size"],
                "without --frequency-penalty",
            ),
            (
                self.dry_multiplier == 0.0,
                &[
                    "dry-base",
                    "dry-allowed-length",
                    "dry-penalty-last-n",
                    "dry-sequence-breaker",
                ],
                "without --dry-multiplier",
            ),
        ])
    }
}

/// A bias in llama.cpp's form: `15043+1.5`, `15043-inf`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LogitBias {
    id: u32,
    bias: f32,
}

impl FromStr for LogitBias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sign = text.find(['+', '-']);
        let parts = sign.map(|sign| text.split_at(sign));
        let parsed = parts.and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
        match parsed {
            Some((id, bias)) => Ok(Self { id, bias }),
            None => Err("expected an id, a sign and a number, as in 15043+1.5 or 15043-inf".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_has_an_id_and_a_signed_number() {
        let (id, none) = (15043, f32::NEG_INFINITY);
        for (text, bias) in [
            ("15043+1.5", 1.5),
            ("15043-1e-3", -1e-3),
            ("15043-inf", none),
        ] {
            assert_eq!(text.parse(), Ok(LogitBias { id, bias }));
        }
        for text in [
            "",
            "15043",
            "+1",
            "x+1",
            "15043+",
            "15043+x",
            "4294967296+1",
            "15043=1",
        ] {
            assert!(text.parse::<LogitBias>().is_err(), "{text}");
        }
    }
}
