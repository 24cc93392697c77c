//! Hugging Face's repetition penalty, a factor.

use mlx_rs::{Array, ops};

use super::{options::Sampling, sampler_vocabulary::SamplerVocabulary};
use crate::error::Result;

/// The repetition penalty and the tokens that it applies to.
#[derive(Debug, Clone)]
pub(super) struct Repetition {
    penalty: f32,
    size: usize,
    seen: Seen,
}

#[derive(Debug, Clone)]
enum Seen {
    /// All tokens so far, bool `[V]`.
    All(Array),
    /// The last tokens, by their number.
    Last(usize),
}

impl Repetition {
    /// The penalty after `prompt`; `None` if it is off.
    pub(super) fn new(
        sampling: &Sampling,
        vocabulary: &SamplerVocabulary<'_>,
        prompt: &[u32],
    ) -> Option<Self> {
        if sampling.repetition_penalty == 1.0 {
            return None;
        }
        let seen = match sampling.repetition_context_size {
            Some(size) => Seen::Last(size),
            None => Seen::All(mask(prompt, vocabulary.size)),
        };
        Some(Self {
            // Larger factors have the same effect and overflow: equal infinities have no order.
            penalty: sampling.repetition_penalty.clamp(1e-12, 1e12),
            size: vocabulary.size,
            seen,
        })
    }

    /// True if [`apply`](Self::apply) needs the history.
    pub(super) fn reads_history(&self) -> bool {
        matches!(self.seen, Seen::Last(_))
    }

    /// Divides positive logits `[V]` of the tokens by the penalty, and multiplies others.
    pub(super) fn apply(&self, logits: &Array, history: &[u32]) -> Result<Array> {
        let penalty = Array::from_f32(self.penalty);
        let positive = logits.gt(Array::from_f32(0.0))?;
        let penalized = ops::select(
            positive,
            logits.divide(&penalty)?,
            logits.multiply(&penalty)?,
        )?;
        let seen = match &self.seen {
            Seen::All(seen) => seen.clone(),
            Seen::Last(count) => mask(last(history, *count), self.size),
        };
        Ok(ops::select(seen, penalized, logits)?)
    }

    /// Adds the chosen token, u32 `[1]`, to the tokens of [`Seen::All`].
    pub(super) fn mark(&mut self, token: &Array) -> Result<()> {
        if let Seen::All(seen) = &mut self.seen {
            let mark = Array::from_slice(&[true], &[1]);
            *seen = seen.put_along_axis(token, &mark, 0)?;
        }
        Ok(())
    }
}

/// The last `count` tokens of `history`.
pub(super) fn last(history: &[u32], count: usize) -> &[u32] {
    &history[history.len().saturating_sub(count)..]
}

/// True for `ids`, bool `[size]`.
fn mask(ids: &[u32], size: usize) -> Array {
    let mut mask = vec![false; size];
    for &id in ids {
        if let Some(entry) = mask.get_mut(id as usize) {
            *entry = true;
        }
    }
    Array::from_slice(&mask, &[size as i32])
}
