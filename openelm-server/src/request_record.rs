//! The record of a request: one line of the log, and its part of the metrics.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use openelm_core::{generation::Stats, one_line};

use crate::app::App;

/// The record of a request, which is complete when it is dropped: with the last byte of the
/// response, or when the client has closed the connection. It holds no text and no key.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    app: Arc<App>,
    started: Instant,
    method: String,
    path: String,
    /// 0 until there is a response.
    status: AtomicU16,
    complete: AtomicBool,
    prompt_tokens: AtomicUsize,
    cached_tokens: AtomicUsize,
    generated_tokens: AtomicUsize,
    first_token: OnceLock<Duration>,
}

/// Records a request. Its handler finds the record among the request's extensions.
pub(crate) async fn record(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = Arc::new(RequestRecord::new(app, &request));
    request.extensions_mut().insert(Arc::clone(&record));
    let response = next.run(request).await;
    let status = response.status().as_u16();
    record.status.store(status, Ordering::Relaxed);
    // The body of a response to HEAD is not read.
    let is_complete = record.method == Method::HEAD.as_str();
    record.complete.store(is_complete, Ordering::Relaxed);
    response.map(|inner| Body::new(RecordedBody { inner, record }))
}

impl RequestRecord {
    fn new(app: Arc<App>, request: &Request) -> Self {
        Self {
            app,
            started: Instant::now(),
            method: request.method().to_string(),
            path: one_line(request.uri().path()),
            status: AtomicU16::new(0),
            complete: AtomicBool::new(false),
            prompt_tokens: AtomicUsize::new(0),
            cached_tokens: AtomicUsize::new(0),
            generated_tokens: AtomicUsize::new(0),
            first_token: OnceLock::new(),
        }
    }

    /// The time at which the head of the request was read.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Counts the tokens of a prompt.
    pub(crate) fn count_prompt(&self, stats: &Stats) {
        let tokens = &self.prompt_tokens;
        tokens.fetch_add(stats.prompt_tokens, Ordering::Relaxed);
        let cached = &self.cached_tokens;
        cached.fetch_add(stats.cached_tokens, Ordering::Relaxed);
    }

    /// Counts a generated token.
    pub(crate) fn count_token(&self) {
        self.generated_tokens.fetch_add(1, Ordering::Relaxed);
        self.first_token.get_or_init(|| self.started.elapsed());
    }

    /// Records the error of a stream, whose status was sent before.
    pub(crate) fn fail(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // nginx's status of a client that has closed the connection.
        let status = if *self.complete.get_mut() {
            *self.status.get_mut()
        } else {
            499
        };
        let seconds = self.started.elapsed();
        let first_token = self.first_token.get().copied();
        let prompt_tokens = *self.prompt_tokens.get_mut();
        let cached_tokens = *self.cached_tokens.get_mut();
        let generated_tokens = *self.generated_tokens.get_mut();
        let metrics = &self.app.metrics;
        metrics.count_request(&self.path, status, seconds, first_token);
        metrics.count_tokens(prompt_tokens, cached_tokens, generated_tokens);
        tracing::info!(
            method = %self.method,
            path = %self.path,
            status,
            prompt_tokens,
            cached_tokens,
            generated_tokens,
            first_token_ms = first_token.map(|time| time.as_millis() as u64),
            ms = seconds.as_millis() as u64,
            "request"
        );
    }
}

/// A response's body with the record of its request.
struct RecordedBody {
    inner: Body,
    record: Arc<RequestRecord>,
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // The end of a body of known length is not read.
        if self.inner.is_end_stream() {
            self.record.complete.store(true, Ordering::Relaxed);
        }
    }
}

impl HttpBody for RecordedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) {
            self.record.complete.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
