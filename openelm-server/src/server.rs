//! The server: its socket, and the loop that accepts connections.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use openelm_core::engine::ModelHandle;
use tokio::{
    runtime,
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    admission::Admission,
    app::App,
    error::{Error, Result},
    listener::{Accepting, Listener},
    metrics::Metrics,
    options::{Listen, ServerOptions},
    request_work::RequestWork,
    router::router,
    shutdown::Shutdown,
    token_texts::TokenTexts,
    write_timeout::WriteTimeout,
};

/// Largest number of threads that read requests; those of the engine compute.
const THREADS: usize = 2;
/// Longest wait for work on other threads after the last connection.
const END: Duration = Duration::from_secs(5);

/// A server with an open socket.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    options: ServerOptions,
    warnings: Vec<String>,
}

impl Server {
    /// Opens the socket. Requests wait in the system's queue until [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Option`] for an option out of range, [`Error::Listen`] if the address cannot be used.
    pub fn open(options: ServerOptions, listen: &Listen) -> Result<Self> {
        options.check()?;
        let listener = Listener::open(listen)?;
        let mut warnings = Vec::new();
        if listener.is_public() {
            let keys = if options.api_keys.is_empty() {
                ", which needs no API key"
            } else {
                ""
            };
            let warning =
                format!("other machines can reach the server{keys}; HTTP is not encrypted");
            warnings.push(warning);
        }
        if options.api_keys.is_open_to_others() {
            let warning = "other users of this machine can read the file of API keys";
            warnings.push(warning.to_owned());
        }
        Ok(Self {
            listener,
            options,
            warnings,
        })
    }

    /// The address for a client: `http://127.0.0.1:8080`, or `unix:PATH`.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// Doubts about the options that are not errors, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Serves requests for texts of `model` until [`Shutdown::begin`], then waits for running requests, up to
    /// [`drain_timeout`](ServerOptions::drain_timeout). Blocks the calling thread.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the system refuses threads.
    pub fn run(self, model: ModelHandle, shutdown: &Shutdown) -> Result<()> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("openelm-server")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let served = runtime.block_on(self.serve(model, shutdown));
        // Ends the connections that are left, which cancels their generations.
        runtime.shutdown_timeout(END);
        served
    }

    async fn serve(self, model: ModelHandle, shutdown: &Shutdown) -> Result<()> {
        let Self {
            listener, options, ..
        } = self;
        let app = Arc::new(App {
            token_texts: TokenTexts::new(model.tokenizer()),
            admission: Admission::new(&options),
            metrics: Metrics::default(),
            work: RequestWork::default(),
            started: seconds_since_1970(),
            is_loopback: listener.is_loopback(),
            is_public: listener.is_public(),
            model,
            options,
        });
        let options = &app.options;
        let service = TowerToHyperService::new(router(Arc::clone(&app)));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.io_timeout);
        let connections = Arc::new(Semaphore::new(options.max_connections));
        let graceful = GracefulShutdown::new();
        let accepting = Accepting::new(listener).map_err(Error::Runtime)?;
        loop {
            let next = async {
                let place = Arc::clone(&connections).acquire_owned().await;
                (place, accepting.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = shutdown.begun() => break,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    // A lack of descriptors or memory, or a client that is gone.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let stream = TokioIo::new(WriteTimeout::new(stream, options.io_timeout));
            let connection = http.serve_connection(stream, service.clone());
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection has ended");
                }
                drop(place);
            });
        }
        drop(accepting);
        tracing::info!(requests = app.admission.requests(), "shutting down");
        let drained = timeout(options.drain_timeout, graceful.shutdown()).await;
        if drained.is_err() {
            tracing::warn!("requests are cancelled: they did not end in time");
        }
        Ok(())
    }
}

fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
