//! XTC ("exclude top choices"), as in mlx-lm.

use mlx_rs::{Array, ops, random};

use super::{filters::mask, options::Sampling, sampler_vocabulary::SamplerVocabulary};
use crate::{error::Result, tokenizer::Tokenizer};

/// The filter and the tokens that it never excludes.
#[derive(Debug, Clone)]
pub(super) struct Xtc {
    probability: f32,
    threshold: f32,
    /// True for tokens that may be excluded, bool `[V]`: all but end tokens and newlines.
    excludable: Array,
}

impl Xtc {
    /// `None` if it is off.
    pub(super) fn new(sampling: &Sampling, vocabulary: &SamplerVocabulary<'_>) -> Option<Self> {
        if sampling.xtc_probability == 0.0 {
            return None;
        }
        let mut excludable = vec![true; vocabulary.size];
        let bytes = vocabulary.tokenizer.and_then(Tokenizer::token_bytes);
        let bytes = (0..).zip(bytes.unwrap_or_default());
        let newlines = bytes.filter(|(_, bytes)| bytes == b"\n");
        let newlines: Vec<u32> = newlines.map(|(id, _)| id).collect();
        for id in vocabulary.end_tokens.iter().chain(&newlines) {
            if let Some(entry) = excludable.get_mut(*id as usize) {
                *entry = false;
            }
        }
        Some(Self {
            probability: sampling.xtc_probability,
            threshold: sampling.xtc_threshold,
            excludable: Array::from_slice(&excludable, &[excludable.len() as i32]),
        })
    }

    /// Excludes the tokens above the threshold, except the least likely of them, with the
    /// probability of the option. `logits` has the tokens `ids`, or all if that is `None`.
    pub(super) fn apply(&self, logits: &Array, ids: Option<&Array>, key: &Array) -> Result<Array> {
        let probabilities = ops::softmax_axis(logits, 0, true)?;
        let above = probabilities.gt(Array::from_f32(self.threshold))?;
        let infinity = Array::from_f32(f32::INFINITY);
        let least = ops::select(above, &probabilities, infinity)?.min_axis(0, true)?;
        let excludable = match ids {
            Some(ids) => self.excludable.take(ids)?,
            None => self.excludable.clone(),
        };
        let excluded = probabilities.gt(least)?.logical_and(excludable)?;
        let number = random::uniform::<_, f32>(0.0_f32, 1.0_f32, &[1], key)?;
        let is_off = number.gt(Array::from_f32(self.probability))?;
        mask(logits, &excluded.logical_not()?.logical_or(is_off)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(probability: f32, threshold: f32, end_tokens: &[u32], seed: u64) -> Vec<bool> {
        let sampling = Sampling {
            xtc_probability: probability,
            xtc_threshold: threshold,
            ..Sampling::default()
        };
        let vocabulary = SamplerVocabulary {
            size: 4,
            tokenizer: None,
            end_tokens,
        };
        let xtc = Xtc::new(&sampling, &vocabulary).unwrap();
        let logits = [0.1_f32, 0.4, 0.2, 0.3].map(f32::ln);
        let logits = Array::from_slice(&logits, &[4]);
        let key = random::key(seed).unwrap();
        let found = xtc.apply(&logits, None, &key).unwrap();
        let found = found.to_vec_exact::<f32>().unwrap();
        found.iter().map(|logit| logit.is_finite()).collect()
    }

    #[test]
    fn keeps_the_least_likely_of_the_top_choices() {
        assert_eq!(kept(1.0, 0.15, &[], 0), [true, false, true, false]);
        assert_eq!(kept(1.0, 0.25, &[], 0), [true, false, true, true]);
        assert_eq!(kept(1.0, 0.35, &[], 0), [true; 4]);
        assert_eq!(kept(1.0, 0.5, &[], 0), [true; 4]);
        assert_eq!(kept(1.0, 0.0, &[], 0), [true, false, false, false]);
        assert_eq!(kept(1.0, 0.0, &[1], 0), [true, true, false, false]);
    }

    #[test]
    fn applies_with_its_probability() {
        let applied = |seed| !kept(0.25, 0.15, &[], seed).iter().all(|&kept| kept);
        let count = (0..2000).filter(|&seed| applied(seed)).count();
        assert!((400..600).contains(&count), "{count}");
    }
}
