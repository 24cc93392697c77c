//! The generations of a request, as one stream of events.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use openelm_core::{
    engine::{EventReceiver, RequestOptions},
    generation::Event,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    admission::{Place, Slot},
    api_error::ApiError,
    app::App,
    request::TextRequest,
};

/// An event of the text with an index.
pub(crate) type IndexedEvent = (usize, Event);

/// The generations of a request. Dropping them cancels all.
pub(crate) struct Generations {
    streams: SelectAll<BoxStream<'static, (usize, Result<Event, ApiError>)>>,
    deadline: Instant,
    _place: Place,
}

impl Generations {
    /// The generations of `request`, which begin in order, each with a slot.
    pub(crate) fn new(
        app: &Arc<App>,
        request: &Arc<TextRequest>,
        place: Place,
        deadline: Instant,
    ) -> Self {
        let turn = Arc::new(Mutex::new(()));
        let streams = (0..request.texts()).map(|index| {
            let waiting = Waiting {
                app: Arc::clone(app),
                request: Arc::clone(request),
                turn: Arc::clone(&turn),
            };
            let events = events(waiting, index);
            events.map(move |event| (index, event)).boxed()
        });
        Self {
            streams: stream::select_all(streams),
            deadline,
            _place: place,
        }
    }

    /// The next event of any text; `None` after the last.
    ///
    /// # Errors
    /// The error of a generation, or of the time limit.
    pub(crate) async fn next(&mut self) -> Result<Option<IndexedEvent>, ApiError> {
        match timeout_at(self.deadline, self.streams.next()).await {
            Ok(None) => Ok(None),
            Ok(Some((index, event))) => Ok(Some((index, event?))),
            Err(_) => Err(ApiError::timeout()),
        }
    }
}

/// A text that has not begun.
struct Waiting {
    app: Arc<App>,
    request: Arc<TextRequest>,
    /// Held by the text of the request that waits for a slot. The others wait for it, so that a
    /// request of many texts delays another one by one text only.
    turn: Arc<Mutex<()>>,
}

/// The state of one generation.
enum Phase {
    Waiting(Waiting),
    Running(EventReceiver<Event>, Slot),
    Ended,
}

/// The events of the text `index`, which begins once there is a slot.
fn events(
    waiting: Waiting,
    index: usize,
) -> impl stream::Stream<Item = Result<Event, ApiError>> + Send {
    stream::unfold(Phase::Waiting(waiting), move |phase| async move {
        let (events, slot) = match phase {
            Phase::Ended => return None,
            Phase::Running(events, slot) => (events, slot),
            Phase::Waiting(waiting) => match waiting.begin(index).await {
                Ok(begun) => begun,
                Err(error) => return Some((Err(error), Phase::Ended)),
            },
        };
        match events.next().await {
            Ok(Some(event @ Event::Finished { .. })) => Some((Ok(event), Phase::Ended)),
            Ok(Some(event)) => Some((Ok(event), Phase::Running(events, slot))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), Phase::Ended)),
        }
    })
}

impl Waiting {
    /// Begins the text `index` once there is a slot.
    async fn begin(self, index: usize) -> Result<(EventReceiver<Event>, Slot), ApiError> {
        let Self { app, request, turn } = self;
        let turn = turn.lock().await;
        let slot = app.admission.slot().await?;
        drop(turn);
        let prompt = request.prompt_of(index);
        let prompt = prompt.map(|prompt| prompt.tokens.clone());
        let prompt = prompt.unwrap_or_default();
        let options = request.options_of(index % request.n);
        let with = RequestOptions {
            adapters: request.adapters.clone(),
            ..RequestOptions::default()
        };
        let events = app.model.generate_with(prompt, options, with)?;
        Ok((events, slot))
    }
}
