//! The choice of a step.

use mlx_rs::Array;

use super::filters::Candidates;
use crate::error::Result;

/// The choice of a step, part of its graph.
#[derive(Debug)]
pub struct Choice {
    /// The token, u32 `[1]`.
    pub token: Array,
    /// Largest of the logits after the exclusions, f32 `[1]`: negative infinity if no token is
    /// allowed. `None` without exclusions.
    pub largest: Option<Array>,
    pub(super) candidates: Candidates,
    pub(super) vocab_size: usize,
}

impl Choice {
    /// The logits that the token was chosen by, f32 `[V]`; negative infinity for excluded tokens.
    ///
    /// # Errors
    /// Failures of MLX.
    pub fn logits(&self) -> Result<Array> {
        let Candidates { logits, ids } = &self.candidates;
        let Some(ids) = ids else {
            return Ok(logits.clone());
        };
        let none = vec![f32::NEG_INFINITY; self.vocab_size];
        let none = Array::from_slice(&none, &[self.vocab_size as i32]);
        Ok(none.put_along_axis(ids, logits, 0)?)
    }
}
