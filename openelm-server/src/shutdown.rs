//! The request to end the service.

use tokio::sync::watch;

/// Ends a server from any thread. Clones end the same server.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Ends the service: no connection is accepted, and running requests have
    /// [`drain_timeout`](crate::ServerOptions::drain_timeout) to end.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits for [`begin`](Self::begin).
    pub(crate) async fn begun(&self) {
        // The sender lives as long as this value.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}
