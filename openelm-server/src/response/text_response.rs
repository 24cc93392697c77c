//! The response to a request for texts: one JSON object, or a stream of server-sent events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use openelm_core::generation::Event;
use tokio::{sync::mpsc, time::timeout};

use super::{
    choice::{Choice, Delta},
    shape::{Envelope, Shape},
    usage::Usage,
};
use crate::{
    admission::Place,
    api_error::ApiError,
    app::App,
    generations::{Generations, IndexedEvent},
    request::TextRequest,
    request_record::RequestRecord,
};

/// Largest number of parts of a stream that wait for its reader.
const PARTS: usize = 1024;

/// Answers `request`. Waits for the first event, so that errors of prompts and options have a status
/// of their own in streams too.
pub(crate) async fn respond(
    app: Arc<App>,
    record: Arc<RequestRecord>,
    place: Place,
    request: TextRequest,
    shape: Shape,
) -> Result<Response, ApiError> {
    let request = Arc::new(request);
    let deadline = record.started() + app.options.request_timeout;
    let generations = Generations::new(&app, &request, place, deadline.into());
    let mut texts = Texts::new(app, record, request, shape, generations)?;
    if !texts.request.stream {
        return texts.whole().await;
    }
    let first = texts.generations.next().await?;
    if let Some(event) = first {
        texts.stream_event(event)?;
    }
    Ok(texts.into_stream())
}

/// The texts of a response that is being made.
struct Texts {
    app: Arc<App>,
    record: Arc<RequestRecord>,
    request: Arc<TextRequest>,
    shape: Shape,
    envelope: Envelope,
    generations: Generations,
    choices: Vec<Choice>,
    usage: Usage,
    /// Parts of the stream that were not sent.
    queue: VecDeque<String>,
    ended: bool,
}

impl Texts {
    fn new(
        app: Arc<App>,
        record: Arc<RequestRecord>,
        request: Arc<TextRequest>,
        shape: Shape,
        generations: Generations,
    ) -> Result<Self, ApiError> {
        let choices = (0..request.texts()).map(|index| Choice::new(&app, &request, index));
        let choices = choices.collect::<Result<Vec<_>, _>>()?;
        let envelope = Envelope {
            id: new_id(shape.id_prefix(), app.started),
            created: now(),
            model: request.model.clone(),
        };
        let mut queue = VecDeque::new();
        for index in 0..choices.len() {
            let chunk = shape.first_chunk(&envelope, &request, index);
            queue.extend(chunk.as_deref().map(data));
        }
        Ok(Self {
            app,
            record,
            request,
            shape,
            envelope,
            generations,
            choices,
            usage: Usage::default(),
            queue,
            ended: false,
        })
    }

    /// The whole response.
    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut texts: Vec<Delta> = self.choices.iter().map(|_| Delta::default()).collect();
        while let Some((index, event)) = self.generations.next().await? {
            let delta = self.take(index, event)?;
            if let Some(text) = texts.get_mut(index) {
                text.extend(delta);
            }
        }
        let (envelope, app, request) = (&self.envelope, &self.app, &self.request);
        let json = self.shape.whole(envelope, app, request, &texts, self.usage);
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, kind);
        Ok((headers, json).into_response())
    }

    /// The stream of all events. They are made ahead of a slow reader, so that it delays no other.
    fn into_stream(mut self) -> Response {
        let (sender, mut receiver) = mpsc::channel(PARTS);
        let limit = self.app.options.io_timeout;
        tokio::spawn(async move {
            while let Some(part) = tokio::select! {
                part = self.next_part() => part,
                // The client is gone.
                () = sender.closed() => None,
            } {
                match timeout(limit, sender.send(part)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => return self.record.fail(StatusCode::REQUEST_TIMEOUT),
                }
            }
        });
        let parts = stream::poll_fn(move |context| receiver.poll_recv(context));
        let parts = parts.map(|part| Ok::<_, Infallible>(Bytes::from(part)));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        (headers, Body::from_stream(parts)).into_response()
    }

    /// The next part of the stream; `None` after the last.
    async fn next_part(&mut self) -> Option<String> {
        loop {
            if !self.queue.is_empty() {
                return Some(self.queue.drain(..).collect());
            }
            if self.ended {
                return None;
            }
            let streamed = match self.generations.next().await {
                Ok(Some(event)) => self.stream_event(event),
                Ok(None) => {
                    self.end_stream();
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = streamed {
                // The status was sent before.
                self.record.fail(error.status());
                self.queue.push_back(data(&error.to_json()));
                self.ended = true;
            }
        }
    }

    /// Adds the parts of an event to the stream.
    fn stream_event(&mut self, (index, event): IndexedEvent) -> Result<(), ApiError> {
        if let Event::Prefill {
            processed, total, ..
        } = &event
        {
            // A comment, which clients ignore, as mlx-lm's server sends it.
            let comment = format!(": keepalive {processed}/{total}\n\n");
            self.queue.push_back(comment);
        }
        let delta = self.take(index, event)?;
        if !delta.is_empty() {
            let (envelope, app, request) = (&self.envelope, &self.app, &self.request);
            let chunk = self.shape.chunk(envelope, app, request, index, &delta);
            self.queue.push_back(data(&chunk));
        }
        Ok(())
    }

    fn end_stream(&mut self) {
        if self.request.include_usage {
            let chunk = self.shape.usage_chunk(&self.envelope, self.usage);
            self.queue.push_back(data(&chunk));
        }
        self.queue.push_back(data("[DONE]"));
        self.ended = true;
    }

    /// Takes an event into its text and the counts.
    fn take(&mut self, index: usize, event: Event) -> Result<Delta, ApiError> {
        if matches!(event, Event::Token(_)) {
            self.record.count_token();
        }
        let Some(choice) = self.choices.get_mut(index) else {
            return Ok(Delta::default());
        };
        let delta = choice.take(event)?;
        if let Some(stats) = &delta.stats {
            let is_first = index.is_multiple_of(self.request.n);
            self.usage.add(stats, is_first);
            if is_first {
                self.record.count_prompt(stats);
            }
        }
        Ok(delta)
    }
}

/// A server-sent event.
fn data(text: &str) -> String {
    format!("data: {text}\n\n")
}

/// An id that no other response of this server has, and hardly one of another server.
fn new_id(prefix: &str, started: u64) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{started:x}-{}-{number:x}", std::process::id())
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
