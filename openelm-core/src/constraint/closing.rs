//! A short end of a text, for a text that reaches the limit of its tokens.

use super::constraint::Constraint;
use crate::error::Result;

/// With more allowed tokens the text is inside a string of JSON, where a bracket closes nothing.
const FREE_TEXT: usize = 500;
/// Longest token in bytes that is preferred where the text must go on.
const LONG: usize = 12;

impl Constraint {
    /// Tokens that complete the text, EOS included, at most `limit`. They close what is open as
    /// soon as it may be closed. `None` if such a greedy text does not end within the limit.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub(crate) fn closing(&self, limit: usize) -> Result<Option<Vec<u32>>> {
        let mut state = self.clone();
        let mut ids = Vec::new();
        while ids.len() < limit {
            let mask = state.mask()?;
            let is_free = mask.count() > FREE_TEXT;
            let allowed = mask.ids();
            let id = match allowed
                .iter()
                .max_by_key(|id| rank(self.bytes(**id), is_free))
            {
                _ if mask.allows(self.eos()) => self.eos(),
                Some(id) => *id,
                None => return Ok(None),
            };
            state.accept(id)?;
            ids.push(id);
            if id == self.eos() {
                return Ok(Some(ids));
            }
        }
        Ok(None)
    }
}

/// The order of tokens: those that close come first, white space and special tokens last.
fn rank(bytes: &[u8], is_free: bool) -> (u8, usize) {
    let closes = bytes.iter().all(|byte| b"}]\"".contains(byte));
    let class = match bytes.first() {
        None => 0,
        Some(0xff) => 0,
        _ if bytes.iter().all(u8::is_ascii_whitespace) => 1,
        Some(b'"') if closes => 5,
        Some(_) if closes && !is_free => 6,
        Some(b',' | b':') if !is_free => 4,
        Some(_) if bytes.len() <= LONG && bytes.iter().all(u8::is_ascii_alphanumeric) => 3,
        Some(_) => 2,
    };
    (class, bytes.len())
}
