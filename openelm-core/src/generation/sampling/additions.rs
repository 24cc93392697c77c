//! Sums of some logits and values: logit bias, and the penalties that are subtracted.

use std::collections::BTreeMap;

use mlx_rs::{Array, ops::indexing};

use super::sampler_vocabulary::SamplerVocabulary;
use crate::error::{Error, Result};

/// Largest absolute value of an option that is added: larger ones have the same effect, and
/// overflow in sums or after the temperature.
pub(super) const LARGEST: f32 = 1e9;

/// Values to add to some logits.
#[derive(Debug, Clone)]
pub(super) struct Additions {
    /// u32 `[N]`, each id once.
    ids: Array,
    /// f32 `[N]`.
    values: Array,
}

impl Additions {
    /// The values of `by_id`; `None` if there are none. Values are finite or negative infinity.
    pub(super) fn new(by_id: &BTreeMap<u32, f32>) -> Option<Self> {
        if by_id.is_empty() {
            return None;
        }
        let shape = [by_id.len() as i32];
        let ids: Vec<u32> = by_id.keys().copied().collect();
        let values: Vec<f32> = by_id.values().copied().collect();
        Some(Self {
            ids: Array::from_slice(&ids, &shape),
            values: Array::from_slice(&values, &shape),
        })
    }

    /// `logit_bias` for a vocabulary.
    pub(super) fn of_bias(
        logit_bias: &BTreeMap<u32, f32>,
        vocabulary: &SamplerVocabulary<'_>,
    ) -> Result<Option<Self>> {
        let size = vocabulary.size;
        if let Some(id) = logit_bias.keys().find(|id| **id as usize >= size) {
            let problem = format!("expected ids below {size}, found the token {id}");
            return Err(Error::option("logit_bias", problem));
        }
        let limited = logit_bias.iter().map(|(id, value)| match *value {
            f32::NEG_INFINITY => (*id, f32::NEG_INFINITY),
            value => (*id, value.clamp(-LARGEST, LARGEST)),
        });
        Ok(Self::new(&limited.collect()))
    }

    /// The logits `[V]` with the values added.
    pub(super) fn add_to(&self, logits: &Array) -> Result<Array> {
        let sums = indexing::take_axis(logits, &self.ids, 0)?.add(&self.values)?;
        Ok(logits.put_along_axis(&self.ids, &sums, 0)?)
    }
}
