//! The set of tokens that a constraint allows next.

use llguidance::toktrie::SimpleVob;
use mlx_rs::Array;

/// A set of token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    set: SimpleVob,
}

impl TokenMask {
    pub(super) fn new(set: SimpleVob) -> Self {
        Self { set }
    }

    /// No token, of `len` ids.
    pub(super) fn empty(len: usize) -> Self {
        Self::new(SimpleVob::alloc(len))
    }

    /// True if `id` is allowed.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.set.len() && self.set.is_allowed(id)
    }

    /// Number of allowed ids.
    pub fn count(&self) -> usize {
        self.set.num_set()
    }

    /// The allowed ids, in order.
    pub fn ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        self.set.iter_set_entries(|id| ids.push(id as u32));
        ids
    }

    /// The mask as an array, bool `[V]`, for a vocabulary of `vocab` ids. Ids beyond the mask are
    /// not allowed.
    pub fn to_array(&self, vocab: usize) -> Array {
        let mut allowed = vec![false; vocab];
        for (word, entries) in self.set.as_slice().iter().zip(allowed.chunks_mut(32)) {
            if *word == 0 {
                continue;
            }
            for (bit, entry) in entries.iter_mut().enumerate() {
                *entry = word >> bit & 1 == 1;
            }
        }
        Array::from_slice(&allowed, &[vocab as i32])
    }

    /// Removes ids.
    pub(super) fn remove(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if (id as usize) < self.set.len() {
                self.set.disallow_token(id);
            }
        }
    }

    /// Adds ids of the vocabulary.
    pub(super) fn add(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if (id as usize) < self.set.len() {
                self.set.allow_token(id);
            }
        }
    }

    /// True if no id is allowed.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_has_the_allowed_ids() {
        let mut set = SimpleVob::alloc(70);
        for id in [0, 31, 32, 69] {
            set.allow_token(id);
        }
        let mut mask = TokenMask::new(set);
        assert_eq!((mask.count(), mask.ids()), (4, vec![0, 31, 32, 69]));
        assert!(mask.allows(69) && !mask.allows(68) && !mask.allows(70));
        for vocab in [40, 70, 100] {
            let array = mask.to_array(vocab);
            let found = array.as_slice::<bool>();
            let expected: Vec<bool> = (0..vocab as u32).map(|id| mask.allows(id)).collect();
            assert_eq!(found, expected);
        }
        mask.remove([0, 31, 32]);
        assert!(!mask.is_empty());
        mask.remove([69]);
        assert!(mask.is_empty());
    }
}
