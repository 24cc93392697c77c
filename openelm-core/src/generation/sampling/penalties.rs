//! OpenAI's presence and frequency penalties over the last tokens, as in mlx-lm.

use std::collections::{BTreeMap, BTreeSet};

use super::{additions::LARGEST, options::Sampling, repetition::last};

/// The penalties and their windows.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    presence: f32,
    presence_context: usize,
    frequency: f32,
    frequency_context: usize,
}

impl Penalties {
    /// `None` if both are off.
    pub(super) fn new(sampling: &Sampling) -> Option<Self> {
        let on = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        on.then_some(Self {
            presence: sampling.presence_penalty.clamp(-LARGEST, LARGEST),
            presence_context: sampling.presence_context_size,
            frequency: sampling.frequency_penalty.clamp(-LARGEST, LARGEST),
            frequency_context: sampling.frequency_context_size,
        })
    }

    /// Subtracts the penalties from the values `by_id`: one for each token of a window, and one
    /// for each occurrence.
    pub(super) fn subtract(&self, history: &[u32], by_id: &mut BTreeMap<u32, f32>) {
        if self.presence != 0.0 {
            let window = last(history, self.presence_context);
            let present: BTreeSet<u32> = window.iter().copied().collect();
            for id in present {
                *by_id.entry(id).or_default() -= self.presence;
            }
        }
        if self.frequency != 0.0 {
            for &id in last(history, self.frequency_context) {
                *by_id.entry(id).or_default() -= self.frequency;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalties(presence: f32, frequency: f32) -> BTreeMap<u32, f32> {
        let sampling = Sampling {
            presence_penalty: presence,
            presence_context_size: 4,
            frequency_penalty: frequency,
            frequency_context_size: 3,
            ..Sampling::default()
        };
        let mut by_id = BTreeMap::new();
        let history = [9, 5, 1, 5, 5];
        Penalties::new(&sampling)
            .unwrap()
            .subtract(&history, &mut by_id);
        by_id
    }

    #[test]
    fn windows_count_tokens() {
        assert_eq!(penalties(0.5, 0.0), [(1, -0.5), (5, -0.5)].into());
        assert_eq!(penalties(0.0, 0.25), [(1, -0.25), (5, -0.5)].into());
        assert_eq!(penalties(0.5, -1.0), [(1, 0.5), (5, 1.5)].into());
        assert!(Penalties::new(&Sampling::default()).is_none());
    }
}
