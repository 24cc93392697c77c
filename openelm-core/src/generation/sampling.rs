//! Sampling of the next token as in Hugging Face's `generate`, in its order: repetition penalty,
//! temperature, top-k, top-p, min-p, then a draw.
//!
//! All operations are part of the step's graph; the host reads only the token.

use mlx_rs::{
    Array,
    ops::{self, indexing},
    random::{self, RandomState},
};

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
    /// Divides positive logits and multiplies negative logits of tokens already in the prompt or
    /// the text, as in Hugging Face. Default 1: off; OpenELM's own examples use 1.2.
    pub repetition_penalty: f32,
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
            repetition_penalty: 1.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// Checks every value's range.
    ///
    /// # Errors
    /// [`Error::Option`] names the first value out of range.
    pub fn check(&self) -> Result<()> {
        let ranges: [(&'static str, f32, bool, &str); 4] = [
            (
                "temperature",
                self.temperature,
                self.temperature.is_finite() && self.temperature >= 0.0,
                "a finite number of at least 0",
            ),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "a number in (0, 1]",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..=1.0).contains(&self.min_p),
                "a number in [0, 1]",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "a finite number above 0",
            ),
        ];
        for (option, value, valid, range) in ranges {
            if !valid {
                let problem = format!("expected {range}, found {value}");
                return Err(Error::option(option, problem));
            }
        }
        Ok(())
    }

    fn is_greedy(&self) -> bool {
        // Smaller divisors would overflow f32 logits; the draw gives the most likely token anyway.
        self.temperature < 1e-5
    }
}

/// The state of one generation's draws. A clone makes the same draws.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: u64,
    random: RandomState,
    /// Mask of the tokens seen so far, bool `[V]`; only with a repetition penalty.
    seen: Option<Array>,
}

impl Sampler {
    /// A sampler after `prompt`, for a vocabulary of `vocab_size` tokens.
    pub(crate) fn new(sampling: &Sampling, vocab_size: usize, prompt: &[u32]) -> Result<Self> {
        sampling.check()?;
        let seen = (sampling.repetition_penalty != 1.0).then(|| {
            let mut seen = vec![false; vocab_size];
            for &id in prompt {
                if let Some(entry) = seen.get_mut(id as usize) {
                    *entry = true;
                }
            }
            Array::from_slice(&seen, &[vocab_size as i32])
        });
        let seed = sampling.seed.unwrap_or_else(fresh_seed);
        Ok(Self {
            sampling: sampling.clone(),
            seed,
            random: RandomState::with_seed(seed)?,
            seen,
        })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// True if the next choice needs the tokens before it on the host, by
    /// [`accept`](Self::accept).
    pub(crate) fn reads_history(&self) -> bool {
        false
    }

    /// Takes a token that the host has read, before the next choice.
    pub(crate) fn accept(&mut self, _id: u32) {}

    /// The next token, u32 `[1]`, from f32 logits `[V]`.
    pub(crate) fn choose(&mut self, logits: &Array) -> Result<Array> {
        let penalized = self.penalize(logits)?;
        let token = if self.sampling.is_greedy() {
            indexing::argmax_axis(&penalized, 0, true)?
        } else {
            let scaled = penalized.divide(Array::from_f32(self.sampling.temperature))?;
            let key = self.random.next_key()?;
            self.draw(&scaled, &key)?
        };
        if let Some(seen) = &self.seen {
            let mark = Array::from_slice(&[true], &[1]);
            self.seen = Some(seen.put_along_axis(&token, &mark, 0)?);
        }
        Ok(token)
    }

    fn penalize(&self, logits: &Array) -> Result<Array> {
        let Some(seen) = &self.seen else {
            return Ok(logits.clone());
        };
        // Larger factors have the same effect and overflow: equal infinities have no order.
        let penalty = self.sampling.repetition_penalty.clamp(1e-12, 1e12);
        let penalty = Array::from_f32(penalty);
        let positive = logits.gt(Array::from_f32(0.0))?;
        let penalized = ops::select(
            positive,
            logits.divide(&penalty)?,
            logits.multiply(&penalty)?,
        )?;
        Ok(ops::select(seen, penalized, logits)?)
    }

    fn draw(&self, logits: &Array, key: &Array) -> Result<Array> {
        let Sampling {
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let vocab = logits.dim(0) as usize;
        let limit = if top_k == 0 { vocab } else { top_k.min(vocab) };
        if limit == vocab && top_p >= 1.0 {
            return Ok(draw_one(&keep_likely(logits, min_p)?, key)?);
        }

        // Candidates in descending order, so that the filters mask all but a prefix.
        let falling = logits.negative()?;
        let order = if limit < vocab {
            let likeliest = first(
                &ops::argpartition_axis(&falling, limit as i32 - 1, 0)?,
                limit,
            )?;
            let ranks = ops::argsort_axis(falling.take(&likeliest)?, 0)?;
            likeliest.take(ranks)?
        } else {
            ops::argsort_axis(&falling, 0)?
        };
        let mut candidates = logits.take(&order)?;
        if top_p < 1.0 {
            let probabilities = ops::softmax_axis(&candidates, 0, true)?;
            let before = probabilities.cumsum(0, false, false)?;
            candidates = mask(&candidates, &before.lt(Array::from_f32(top_p))?)?;
        }
        let rank = draw_one(&keep_likely(&candidates, min_p)?, key)?;
        Ok(order.take(rank)?)
    }
}

/// Masks tokens whose probability is below `min_p` times the largest.
fn keep_likely(logits: &Array, min_p: f32) -> Result<Array> {
    if min_p <= 0.0 {
        return Ok(logits.clone());
    }
    let floor = logits.max_axis(0, true)?.add(Array::from_f32(min_p.ln()))?;
    mask(logits, &logits.ge(floor)?)
}

fn mask(logits: &Array, keep: &Array) -> Result<Array> {
    Ok(ops::select(
        keep,
        logits,
        Array::from_f32(f32::NEG_INFINITY),
    )?)
}

fn first(array: &Array, count: usize) -> Result<Array> {
    use indexing::TryIndexOp;
    Ok(array.try_index(..count as i32)?)
}

fn draw_one(logits: &Array, key: &Array) -> mlx_rs::error::Result<Array> {
    random::categorical(logits.expand_dims(0)?, -1, None, key)
}

/// A seed that differs from run to run.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState as HashState};
    // Short enough to type, and exact in a JSON number.
    HashState::new().hash_one(()) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws many tokens from `logits` and returns the frequency of each token.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let sampling = Sampling {
            seed: Some(7),
            ..sampling
        };
        let mut sampler = Sampler::new(&sampling, logits.len(), &[]).unwrap();
        let array = Array::from_slice(logits, &[logits.len() as i32]);
        let mut counts = vec![0.0; logits.len()];
        let draws = 4000;
        for _ in 0..draws {
            let token = sampler.choose(&array).unwrap();
            counts[token.item_exact::<u32>() as usize] += 1.0 / f64::from(draws);
        }
        counts
    }

    fn assert_shares(sampling: Sampling, logits: &[f32], expected: &[f64]) {
        let shares = shares(sampling.clone(), logits);
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 0.03, "{sampling:?}: {shares:?}");
            assert_eq!(*share == 0.0, *expected == 0.0, "{sampling:?}: {shares:?}");
        }
    }

    fn ln(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_most_likely_token() {
        assert_shares(Sampling::default(), &[0.1, 2.0, -1.0], &[0.0, 1.0, 0.0]);
        let tiny = Sampling {
            temperature: 1e-30,
            ..Sampling::default()
        };
        assert_shares(tiny, &[0.1, 2.0, -1.0], &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = ln(&[0.2, 0.5, 0.3]);
        let base = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_shares(base.clone(), &logits, &[0.2, 0.5, 0.3]);
        // Halving the temperature squares the probabilities: 4, 25 and 9 of 38.
        let cold = Sampling {
            temperature: 0.5,
            ..base.clone()
        };
        assert_shares(cold, &logits, &[4.0 / 38.0, 25.0 / 38.0, 9.0 / 38.0]);
        let top_k = Sampling {
            top_k: 2,
            ..base.clone()
        };
        assert_shares(top_k, &logits, &[0.0, 0.625, 0.375]);
        let top_p = Sampling {
            top_p: 0.6,
            ..base.clone()
        };
        assert_shares(top_p, &logits, &[0.0, 0.625, 0.375]);
        let top_p_one = Sampling {
            top_p: 0.4,
            ..base.clone()
        };
        assert_shares(top_p_one, &logits, &[0.0, 1.0, 0.0]);
        let min_p = Sampling {
            min_p: 0.5,
            ..base.clone()
        };
        assert_shares(min_p, &logits, &[0.0, 0.625, 0.375]);
        let all = Sampling {
            top_k: 2,
            top_p: 0.9,
            min_p: 0.7,
            ..base
        };
        assert_shares(all, &logits, &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn repetition_penalty_follows_hugging_face() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&sampling, 4, &[0, 3]).unwrap();
        let logits = Array::from_slice(&[4.0_f32, 3.0, -1.0, -0.5], &[4]);
        let penalized = sampler.penalize(&logits).unwrap();
        assert_eq!(
            penalized.to_vec_exact::<f32>().unwrap(),
            [2.0, 3.0, -1.0, -1.0]
        );
        // Token 1 wins once, is then penalised to 1.5, and token 0 at 2 wins.
        assert_eq!(sampler.choose(&logits).unwrap().item_exact::<u32>(), 1);
        assert_eq!(sampler.choose(&logits).unwrap().item_exact::<u32>(), 0);
        assert_eq!(sampler.choose(&logits).unwrap().item_exact::<u32>(), 0);
    }

    #[test]
    fn extreme_values_keep_the_order_of_the_logits() {
        let logits = [-8.0_f32, -2.0, -4.0, 1.0];
        let array = Array::from_slice(&logits, &[4]);
        let choose = |sampling: Sampling, prompt: &[u32]| {
            let seed = Some(11);
            let sampling = Sampling { seed, ..sampling };
            let mut sampler = Sampler::new(&sampling, 4, prompt).unwrap();
            sampler.choose(&array).unwrap().item_exact::<u32>()
        };
        let cold = Sampling {
            temperature: 1e-5,
            ..Sampling::default()
        };
        for (temperature, repetition_penalty, prompt, expected) in [
            // All tokens are penalised.
            (0.0, f32::MAX, &[0, 1, 2, 3][..], 3),
            (0.0, f32::MAX, &[0, 1, 2], 3),
            (1e-5, f32::MAX, &[0, 1, 2, 3], 3),
            (1e-5, f32::MIN_POSITIVE, &[3], 3),
            (0.0, f32::MIN_POSITIVE, &[0, 1, 2, 3], 3),
            (f32::MIN_POSITIVE, 1.0, &[], 3),
        ] {
            let sampling = Sampling {
                temperature,
                repetition_penalty,
                ..Sampling::default()
            };
            assert_eq!(choose(sampling.clone(), prompt), expected, "{sampling:?}");
        }
        for (top_k, top_p, min_p) in [
            (0, f32::MIN_POSITIVE, 0.0),
            (0, 1.0, 1.0),
            (1, f32::MIN_POSITIVE, 1.0),
            (3, 1.0, f32::MIN_POSITIVE),
            (usize::MAX, 0.5, 1.0),
        ] {
            let sampling = Sampling {
                top_k,
                top_p,
                min_p,
                ..cold.clone()
            };
            assert_eq!(choose(sampling.clone(), &[]), 3, "{sampling:?}");
        }
        // Equal negative logits, all penalised: the larger one stays first.
        let array = Array::from_slice(&[-8.0_f32, -2.0, -4.0], &[3]);
        let sampling = Sampling {
            repetition_penalty: f32::MAX,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&sampling, 3, &[0, 1, 2]).unwrap();
        assert_eq!(sampler.choose(&array).unwrap().item_exact::<u32>(), 1);
    }

    #[test]
    fn rejects_values_out_of_range() {
        let bad = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.check().unwrap_err().to_string()
        };
        assert_eq!(
            bad(|s| s.temperature = f32::NAN),
            "temperature: expected a finite number of at least 0, found NaN"
        );
        assert!(bad(|s| s.temperature = -0.5).starts_with("temperature: "));
        assert!(bad(|s| s.temperature = f32::INFINITY).starts_with("temperature: "));
        assert!(bad(|s| s.top_p = 0.0).starts_with("top_p: "));
        assert!(bad(|s| s.top_p = 1.01).starts_with("top_p: "));
        assert!(bad(|s| s.top_p = f32::NAN).starts_with("top_p: "));
        assert!(bad(|s| s.min_p = -0.1).starts_with("min_p: "));
        assert!(bad(|s| s.repetition_penalty = 0.0).starts_with("repetition_penalty: "));
    }

    #[test]
    fn equal_seeds_draw_equal_tokens() {
        let draws = |seed| {
            let sampling = Sampling {
                temperature: 1.0,
                seed: Some(seed),
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling, 50, &[]).unwrap();
            let logits = Array::zeros::<f32>(&[50]).unwrap();
            let draw = |_| sampler.choose(&logits).unwrap().item_exact::<u32>();
            (0..20).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }
}
