//! Loading a model, with progress.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use openelm_core::{self as core, CancelHandle, Dtype, LanguageModel, internal::Turn};

use crate::{
    ending,
    engine::Engine,
    error::{EngineError, Result},
    outbox::{self, Inbox},
    worker::{self, Models},
};

/// As `openelm_core::LoadOptions`; `dtype` is `float32`, `float16` or `bfloat16`.
#[derive(Debug, Clone, Default, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::LoadOptions")]
pub struct LoadOptions {
    pub dtype: Option<String>,
    pub tokenizer: Option<String>,
    pub keep_quantized: Option<bool>,
}

/// Bytes of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "two words")]
pub struct LoadProgress {
    pub read: u64,
    pub total: u64,
}

/// A model being loaded. Dropping it ends that.
#[derive(Debug, uniffi::Object)]
pub struct LoadRun {
    events: Inbox<LoadMessage>,
    cancel: CancelHandle,
    loaded: Mutex<Option<Arc<Engine>>>,
}

#[derive(Debug)]
enum LoadMessage {
    Progress(LoadProgress),
    Loaded(Arc<Engine>),
}

/// Begins to load the model folder `path`.
///
/// # Errors
/// [`EngineError::Dtype`] for a type that there is not.
#[uniffi::export]
pub fn load_model(path: String, options: LoadOptions) -> Result<Arc<LoadRun>> {
    let options = core::LoadOptions::try_from(options)?;
    let (out, events) = outbox::channel();
    let cancel = CancelHandle::default();
    let called_off = cancel.clone();
    worker::submit(move |models, turn| {
        let loaded = worker::guard(|| {
            load(models, turn, &path, &options, &called_off, |progress| {
                out.replace(Ok(LoadMessage::Progress(progress)));
            })
        });
        out.replace(loaded.map(LoadMessage::Loaded));
    })?;
    Ok(Arc::new(LoadRun {
        events,
        cancel,
        loaded: Mutex::new(None),
    }))
}

#[uniffi::export]
impl LoadRun {
    /// How far it has come; earlier news that nobody read is left out. `None` when the model is
    /// there.
    ///
    /// # Errors
    /// What is wrong with the model; [`EngineError::Cancelled`].
    pub async fn next(&self) -> Result<Option<LoadProgress>> {
        match self.events.next().await? {
            Some(LoadMessage::Progress(progress)) => Ok(Some(progress)),
            Some(LoadMessage::Loaded(engine)) => {
                *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The model, after `next` said `None`; once.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] if there is none.
    pub fn engine(&self) -> Result<Arc<Engine>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.take().ok_or_else(|| core::Error::Cancelled.into())
    }

    /// Ends it before the next tensor.
    ///
    /// # Errors
    /// None but a panic.
    pub fn cancel(&self) -> Result<()> {
        self.cancel.cancel();
        worker::gate().poke();
        self.events.close();
        Ok(())
    }
}

impl Drop for LoadRun {
    fn drop(&mut self) {
        self.cancel.cancel();
        worker::gate().poke();
    }
}

fn load(
    models: &mut Models,
    turn: Turn<'static>,
    path: &str,
    options: &core::LoadOptions,
    cancel: &CancelHandle,
    mut tell: impl FnMut(LoadProgress),
) -> Result<Arc<Engine>> {
    let mut turn = Some(turn);
    let progress = |read, total| {
        tell(LoadProgress { read, total });
        rest(&mut turn, cancel);
    };
    let model = LanguageModel::load_cancellable(PathBuf::from(path), options, cancel, progress)?;
    let number = worker::number();
    let engine = Engine::of(&model, number)?;
    models.loaded.insert(number, model);
    Ok(Arc::new(engine))
}

/// Between two pieces of a long job: gives its turn back and waits for the next one, if the gate
/// was closed. At the end of the process it does not return.
pub(crate) fn rest(turn: &mut Option<Turn<'static>>, cancel: &CancelHandle) {
    ending::register();
    if worker::gate().is_closed() {
        *turn = None;
        *turn = worker::gate().enter(|| cancel.is_cancelled() || ending::has_begun());
    }
    if ending::has_begun() {
        ending::stop();
    }
}

impl TryFrom<LoadOptions> for core::LoadOptions {
    type Error = EngineError;

    fn try_from(options: LoadOptions) -> Result<Self> {
        let dtype = options.dtype.map(|name| name.parse::<Dtype>());
        Ok(Self {
            dtype: dtype.transpose()?,
            tokenizer: options.tokenizer.map(PathBuf::from),
            keep_quantized: options.keep_quantized,
        })
    }
}
