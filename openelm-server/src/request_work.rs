//! Work on the bodies of requests: parsing, tokenizing, compiling constraints.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::api_error::ApiError;

/// Bodies that are worked on at the same time. Each may take a second and a hundred times its size in
/// memory.
const AT_A_TIME: usize = 4;

/// Threads for the work on requests.
///
/// The work of a client that is gone cannot be cancelled. It counts until it ends, so that clients
/// that come and go start no more threads than others.
#[derive(Debug)]
pub(crate) struct RequestWork(Arc<Semaphore>);

impl Default for RequestWork {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl RequestWork {
    /// The result of `work` on a thread of its own, in the order of the calls. Work that has not
    /// begun is dropped with the future.
    ///
    /// # Errors
    /// The errors of `work`, or the status 503 if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed = || ApiError::unavailable("the work on the request has failed");
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(|_| failed())?;
        let work = spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        work.await.unwrap_or_else(|_| Err(failed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{runtime, select, task::yield_now};

    use super::*;

    #[test]
    fn work_of_clients_that_are_gone_counts_until_it_ends() {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let work = RequestWork::default();
        let (started, starts) = mpsc::channel();
        let mut ends = Vec::new();
        let mut running = Vec::new();
        for _ in 0..AT_A_TIME {
            let (end, ended) = mpsc::channel::<()>();
            let started = started.clone();
            ends.push(end);
            running.push(Box::pin(work.run(move || {
                started.send(()).unwrap();
                let _ = ended.recv();
                Ok(())
            })));
        }
        runtime.block_on(async {
            for future in &mut running {
                select! {
                    biased;
                    _ = future => panic!("the work has not ended"),
                    () = yield_now() => {}
                }
            }
        });
        for _ in 0..AT_A_TIME {
            starts.recv().unwrap();
        }
        // The clients are gone, their work is not.
        drop(running);
        assert_eq!(work.0.available_permits(), 0);
        drop(ends);
        runtime.block_on(work.run(|| Ok(()))).unwrap();
    }
}
