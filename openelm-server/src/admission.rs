//! Admission of requests: a bounded queue, and a bounded number of running generations.

use std::sync::Arc;

use openelm_core::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{api_error::ApiError, options::ServerOptions};

/// The places of requests and the slots of generations.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Running and waiting requests.
    places: Arc<Semaphore>,
    /// Running generations.
    slots: Arc<Semaphore>,
    most_places: usize,
    most_slots: usize,
}

/// The place of a request, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held until the drop")] OwnedSemaphorePermit);

/// The slot of a generation, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held until the drop")] OwnedSemaphorePermit);

impl Admission {
    /// A running request has at least one slot, and the queue holds `max_queue` further ones.
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let most_slots = options.decode_concurrency;
        let most_places = most_slots + options.max_queue;
        Self {
            places: Arc::new(Semaphore::new(most_places)),
            slots: Arc::new(Semaphore::new(most_slots)),
            most_places,
            most_slots,
        }
    }

    /// A place for a request.
    ///
    /// # Errors
    /// A response with the status 429 if there is none.
    pub(crate) fn enter(&self) -> Result<Place, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map(Place).map_err(|_| ApiError::queue_full())
    }

    /// Waits for a slot, in the order of the calls.
    pub(crate) async fn slot(&self) -> Result<Slot, ApiError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        // The semaphore is never closed.
        slot.map(Slot).map_err(|_| Error::Unusable.into())
    }

    /// Number of requests with a place.
    pub(crate) fn requests(&self) -> usize {
        self.most_places - self.places.available_permits()
    }

    /// Number of running generations.
    pub(crate) fn generations(&self) -> usize {
        self.most_slots - self.slots.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_full_queue_refuses_a_request() {
        let admission = Admission::new(&ServerOptions {
            decode_concurrency: 1,
            max_queue: 1,
            ..ServerOptions::default()
        });
        let first = admission.enter().unwrap();
        let _second = admission.enter().unwrap();
        let refused = admission.enter().unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(admission.requests(), 2);
        drop(first);
        admission.enter().unwrap();
        assert_eq!(admission.generations(), 0);
    }
}
