//! Counts: 64 bits for apps, the size of a pointer in the core.

/// `number` for the core.
pub(crate) fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
