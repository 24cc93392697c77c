//! A source of drafts.

use std::fmt::Debug;

use crate::{error::Result, generation::sampling::Sampler};

/// Proposes the next tokens of a text.
pub(super) trait Drafter: Debug {
    /// Reads `known`, the beginning of the prompt.
    fn read_prompt(&mut self, known: &[u32]) -> Result<()>;

    /// True if there may be drafts once the token after `known`, which the device computes now, is
    /// read.
    fn expects(&self, known: &[u32]) -> bool;

    /// At most `most` tokens that may follow `known`, for the next choices of `sampler`.
    fn propose(&mut self, known: &[u32], sampler: &Sampler, most: usize) -> Result<Vec<u32>>;

    /// The time for one draft, as a fraction of a decoding step.
    fn cost(&self) -> f32;
}
