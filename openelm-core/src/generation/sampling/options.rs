//! Options of the sampling, with their defaults and ranges.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Options of the sampling. The default is greedy: always the most likely token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the draw. 0, the default, takes the most likely token instead.
    pub temperature: f32,
    /// Draws among this many most likely tokens. 0, the default, means all.
    pub top_k: usize,
    /// Draws among the smallest set of most likely tokens whose probabilities sum to at least
    /// this, in `(0, 1]`. Default 1: all.
    pub top_p: f32,
    /// Excludes tokens less likely than this fraction of the highest probability, in `[0, 1]`.
    /// Default 0: none.
    pub min_p: f32,
    /// Draws among the smallest set of tokens whose information content is closest to the entropy
    /// and whose probabilities sum to at least this, in `(0, 1]` (locally typical sampling).
    /// Default 1: all.
    pub typical_p: f32,
    /// Excludes tokens whose logit is more than this many standard deviations of the logits below
    /// the largest. Default 0: off.
    pub top_n_sigma: f32,
    /// Probability of XTC at each token, in `[0, 1]`: of the tokens more likely than
    /// `xtc_threshold`, only the least likely stays, beside end tokens and newlines. Default 0.
    pub xtc_probability: f32,
    /// Probability above which XTC excludes tokens, in `[0, 0.5]`. Default 0.1.
    pub xtc_threshold: f32,
    /// Divides positive logits and multiplies negative logits of tokens already in the prompt or
    /// the text, as in Hugging Face. Default 1: off; OpenELM's own examples use 1.2.
    pub repetition_penalty: f32,
    /// Number of last tokens that `repetition_penalty` considers. `None`, the default: all, as in
    /// Hugging Face; mlx-lm's default is 20.
    pub repetition_context_size: Option<usize>,
    /// Subtracted from the logits of tokens among the last `presence_context_size`. Default 0.
    pub presence_penalty: f32,
    /// Number of last tokens, of prompt and text, that `presence_penalty` considers. Default 20.
    pub presence_context_size: usize,
    /// Subtracted from the logits of tokens among the last `frequency_context_size`, for each
    /// occurrence. Default 0.
    pub frequency_penalty: f32,
    /// Number of last tokens, of prompt and text, that `frequency_penalty` considers. Default 20.
    pub frequency_context_size: usize,
    /// Penalty of DRY for a token that would extend a repeated sequence of tokens:
    /// `dry_multiplier * dry_base ^ (length - dry_allowed_length)`. Default 0: off.
    pub dry_multiplier: f32,
    /// Base of DRY's penalty, at least 1. Default 1.75.
    pub dry_base: f32,
    /// Shortest repeated sequence that DRY penalises, at least 1. Default 2.
    pub dry_allowed_length: usize,
    /// Number of last tokens in which DRY searches. `None`, the default: all.
    pub dry_penalty_last_n: Option<usize>,
    /// Strings at which repeated sequences of DRY begin anew, of 64 KiB in all. Default: newline,
    /// `:`, `"` and `*`.
    pub dry_sequence_breakers: Vec<String>,
    /// Added to the logits of tokens, by id; negative infinity excludes a token. Default none.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Excludes end tokens among this many first tokens of the text. Default 0.
    pub min_tokens: usize,
    /// Strings that the text never contains, of 64 KiB in all: a token that would complete one is
    /// excluded. Default none.
    pub banned_strings: Vec<String>,
    /// Beginning of the text, of up to 64 KiB, whose tokens are not drawn. Default none.
    pub forced_prefix: String,
    /// Seed of the draws: the same seed gives the same text. `None`, the default, draws a seed.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            repetition_context_size: None,
            presence_penalty: 0.0,
            presence_context_size: 20,
            frequency_penalty: 0.0,
            frequency_context_size: 20,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            logit_bias: BTreeMap::new(),
            min_tokens: 0,
            banned_strings: Vec::new(),
            forced_prefix: String::new(),
            seed: None,
        }
    }
}

/// Most bytes of the strings of one option: they are searched at each token.
const MAX_TEXT_BYTES: usize = 1 << 16;

/// A range of numbers: its test and its text.
type Range = (fn(f32) -> bool, &'static str);

const FINITE: Range = (f32::is_finite, "a finite number");
const NOT_NEGATIVE: Range = (
    |x| x.is_finite() && x >= 0.0,
    "a finite number of at least 0",
);
const POSITIVE: Range = (|x| x.is_finite() && x > 0.0, "a finite number above 0");
const FROM_ONE: Range = (
    |x| x.is_finite() && x >= 1.0,
    "a finite number of at least 1",
);
const SHARE: Range = (|x| (0.0..=1.0).contains(&x), "a number in [0, 1]");
const SHARE_ABOVE_0: Range = (|x| x > 0.0 && x <= 1.0, "a number in (0, 1]");
const HALF: Range = (|x| (0.0..=0.5).contains(&x), "a number in [0, 0.5]");

impl Sampling {
    /// Checks every value's range.
    ///
    /// # Errors
    /// [`Error::Option`] names the first value out of range.
    pub fn check(&self) -> Result<()> {
        for (option, value, (valid, range)) in [
            ("temperature", self.temperature, NOT_NEGATIVE),
            ("top_p", self.top_p, SHARE_ABOVE_0),
            ("min_p", self.min_p, SHARE),
            ("typical_p", self.typical_p, SHARE_ABOVE_0),
            ("top_n_sigma", self.top_n_sigma, NOT_NEGATIVE),
            ("xtc_probability", self.xtc_probability, SHARE),
            ("xtc_threshold", self.xtc_threshold, HALF),
            ("repetition_penalty", self.repetition_penalty, POSITIVE),
            ("presence_penalty", self.presence_penalty, FINITE),
            ("frequency_penalty", self.frequency_penalty, FINITE),
            ("dry_multiplier", self.dry_multiplier, NOT_NEGATIVE),
            ("dry_base", self.dry_base, FROM_ONE),
        ] {
            if !valid(value) {
                let problem = format!("expected {range}, found {value}");
                return Err(Error::option(option, problem));
            }
        }
        let repetition = self.repetition_context_size.unwrap_or(usize::MAX);
        let dry = self.dry_penalty_last_n.unwrap_or(usize::MAX);
        for (option, value) in [
            ("repetition_context_size", repetition),
            ("presence_context_size", self.presence_context_size),
            ("frequency_context_size", self.frequency_context_size),
            ("dry_allowed_length", self.dry_allowed_length),
            ("dry_penalty_last_n", dry),
        ] {
            if value == 0 {
                return Err(Error::at_least(option, 1, 0));
            }
        }
        let valid = |bias: f32| bias.is_finite() || bias == f32::NEG_INFINITY;
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !valid(**bias)) {
            let problem =
                format!("expected a finite number or -inf, found {bias} for the token {id}");
            return Err(Error::option("logit_bias", problem));
        }
        check_strings("banned_strings", &self.banned_strings)?;
        check_strings("dry_sequence_breakers", &self.dry_sequence_breakers)?;
        check_bytes("forced_prefix", self.forced_prefix.len())?;
        let mut banned = self.banned_strings.iter();
        if let Some(string) = banned.find(|string| self.forced_prefix.contains(string.as_str())) {
            let problem =
                format!("expected a text without the banned string {string:?}, found one with it");
            return Err(Error::option("forced_prefix", problem));
        }
        Ok(())
    }

    /// True if the most likely token is taken.
    pub(super) fn is_greedy(&self) -> bool {
        // Smaller divisors would overflow f32 logits; the draw gives the most likely token anyway.
        self.temperature < 1e-5
    }
}

/// Refuses texts that would take long at each token.
fn check_bytes(option: &'static str, bytes: usize) -> Result<()> {
    if bytes > MAX_TEXT_BYTES {
        let problem = format!("expected at most {MAX_TEXT_BYTES} bytes, found {bytes}");
        return Err(Error::option(option, problem));
    }
    Ok(())
}

/// Refuses strings that no sequence of bytes can be searched for.
fn check_strings(option: &'static str, strings: &[String]) -> Result<()> {
    let bytes = strings.iter().map(String::len).sum();
    check_bytes(option, bytes)?;
    for string in strings {
        let problem = if string.is_empty() {
            "expected strings with text, found an empty one"
        } else if string.contains(char::REPLACEMENT_CHARACTER) {
            "expected strings without U+FFFD, which stands for invalid bytes, found one with it"
        } else {
            continue;
        };
        return Err(Error::option(option, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_values_out_of_range() {
        let problem = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.check().unwrap_err().to_string()
        };
        assert_eq!(
            problem(&|s| s.temperature = f32::NAN),
            "temperature: expected a finite number of at least 0, found NaN"
        );
        assert_eq!(
            problem(&|s| s.presence_context_size = 0),
            "presence_context_size: expected at least 1, found 0"
        );
        assert_eq!(
            problem(&|s| _ = s.logit_bias.insert(7, f32::INFINITY)),
            "logit_bias: expected a finite number or -inf, found inf for the token 7"
        );
        assert_eq!(
            problem(&|s| (s.forced_prefix, s.banned_strings) = ("abc".into(), vec!["bc".into()])),
            "forced_prefix: expected a text without the banned string \"bc\", found one with it"
        );
        const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        type Field = fn(&mut Sampling) -> &mut f32;
        let fields: [(&str, Field, &[f32]); 12] = [
            ("temperature", |s| &mut s.temperature, &[-0.5]),
            ("top_p", |s| &mut s.top_p, &[0.0, -0.0, 1.01]),
            ("min_p", |s| &mut s.min_p, &[-0.1, 1.1]),
            ("typical_p", |s| &mut s.typical_p, &[0.0, 1.1]),
            ("top_n_sigma", |s| &mut s.top_n_sigma, &[-1.0]),
            ("xtc_probability", |s| &mut s.xtc_probability, &[-0.1, 1.1]),
            ("xtc_threshold", |s| &mut s.xtc_threshold, &[-0.1, 0.51]),
            ("repetition_penalty", |s| &mut s.repetition_penalty, &[0.0]),
            ("presence_penalty", |s| &mut s.presence_penalty, &[]),
            ("frequency_penalty", |s| &mut s.frequency_penalty, &[]),
            ("dry_multiplier", |s| &mut s.dry_multiplier, &[-0.1]),
            ("dry_base", |s| &mut s.dry_base, &[0.99]),
        ];
        for (name, field, values) in fields {
            for value in BAD.iter().chain(values) {
                let found = problem(&|s| *field(s) = *value);
                assert!(found.starts_with(&format!("{name}: ")), "{found}");
            }
        }
        type Change = fn(&mut Sampling);
        let changes: [(&str, Change); 10] = [
            ("banned_strings", |s| {
                s.banned_strings = vec!["ab".repeat(1 << 10); 33];
            }),
            ("dry_sequence_breakers", |s| {
                s.dry_sequence_breakers = vec!["ab".into(); (1 << 15) + 1];
            }),
            ("forced_prefix", |s| {
                s.forced_prefix = "a".repeat((1 << 16) + 1)
            }),
            ("repetition_context_size", |s| {
                s.repetition_context_size = Some(0);
            }),
            ("frequency_context_size", |s| s.frequency_context_size = 0),
            ("dry_allowed_length", |s| s.dry_allowed_length = 0),
            ("dry_penalty_last_n", |s| s.dry_penalty_last_n = Some(0)),
            ("logit_bias", |s| _ = s.logit_bias.insert(0, f32::NAN)),
            ("banned_strings", |s| s.banned_strings = vec!["".into()]),
            ("dry_sequence_breakers", |s| {
                s.dry_sequence_breakers = vec!["\u{fffd}".into()];
            }),
        ];
        for (name, change) in changes {
            let found = problem(&change);
            assert!(found.starts_with(&format!("{name}: ")), "{found}");
        }
        let ban = Sampling {
            logit_bias: [(3, f32::NEG_INFINITY)].into(),
            ..Sampling::default()
        };
        ban.check().unwrap();
    }
}
