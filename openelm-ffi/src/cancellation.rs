//! Cancellation of a call. UniFFI does not cancel the future of a call whose Swift task is cancelled.

use std::sync::Arc;

use openelm_core::CancelHandle;

use crate::error::Result;

/// Cancels the call that it was passed to.
#[derive(Debug, Default, uniffi::Object)]
pub struct Cancellation(pub(crate) CancelHandle);

/// A cancellation of one call.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn new_cancellation() -> Result<Arc<Cancellation>> {
    Ok(Arc::default())
}

#[uniffi::export]
impl Cancellation {
    /// Ends the call with [`Error::Cancelled`](crate::Error::Cancelled) before its next unit of work.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.0.cancel();
        Ok(())
    }
}
