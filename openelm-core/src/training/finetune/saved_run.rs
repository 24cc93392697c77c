//! A fine-tuning run that was saved and can be resumed.

use std::path::Path;

use serde_json::Value;

use crate::{
    error::Result,
    training::{
        BestValidation, Trainer,
        state::{STATE_FILE, counters},
    },
};

/// A run in a folder that can be resumed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SavedRun {
    /// Number of complete steps at the last save.
    pub iteration: u64,
    /// Number of targets of these steps.
    pub trained_tokens: u64,
    /// Rows per batch, which a resumed run must share.
    pub batch_size: usize,
    /// Batches per update, which a resumed run must share.
    pub grad_accumulation_steps: usize,
    /// The best validation so far.
    pub best: Option<BestValidation>,
}

impl SavedRun {
    /// The fine-tuning run in `folder`; `None` if there is none, or if it ended before its first save
    /// was complete. Reads the header of its state only.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Checkpoint`](crate::Error::Checkpoint) if the state
    /// is malformed.
    pub fn find(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let state = folder.as_ref().join(STATE_FILE);
        if !state.exists() {
            return Ok(None);
        }
        let saved = Trainer::caller_of(&state)?;
        let key = |name: &str| saved.get("resume_key")?.get(name).cloned();
        // Only a run of fine-tuning has an adapter.
        if key("fine_tune_type").is_none() {
            return Ok(None);
        }
        let number = |value: Option<Value>| value.as_ref().and_then(Value::as_u64).unwrap_or(0);
        Ok(Some(Self {
            iteration: counters(&state)?.iteration,
            trained_tokens: number(saved.get("trained_tokens").cloned()),
            batch_size: number(key("batch_size")) as usize,
            grad_accumulation_steps: number(key("grad_accumulation_steps")) as usize,
            best: saved
                .get("best")
                .cloned()
                .and_then(|best| serde_json::from_value(best).ok()),
        }))
    }
}
