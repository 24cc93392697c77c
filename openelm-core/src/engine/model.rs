//! The handle of a loaded model.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    engine::Engine,
    event_channel::{self, EventReceiver},
    generation::{Request, RequestOptions},
    prompt::Prompt,
    state::{AdapterNames, RequestedAnswer, ShownChat, lock, next_id},
    worker::catch_panic,
};
use crate::{
    adapter::Adapter,
    config::Config,
    error::{Error, Result},
    generation::{Event, GenerateOptions, LanguageModel},
    mlx::{Device, Dtype, memory},
    tokenizer::Tokenizer,
};

/// A model on an engine's thread. Dropping the last handle unloads it.
#[derive(Debug, Clone)]
pub struct ModelHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    id: u64,
    info: ModelInfo,
    tokenizer: Tokenizer,
    adapters: Arc<Mutex<AdapterNames>>,
    unloaded: AtomicBool,
}

/// Properties of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The architecture.
    pub config: Config,
    /// Dtype of the computation.
    pub dtype: Dtype,
    /// Device of the computation.
    pub device: Device,
    /// Doubts about the model that are not errors, a sentence each.
    pub warnings: Vec<String>,
}

impl ModelHandle {
    /// The handle of `model`, which the engine's thread stores under `id`.
    pub(super) fn new(engine: Engine, model: &LanguageModel, id: u64) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            engine,
            id,
            info: ModelInfo {
                config: model.model().config().clone(),
                dtype: model.model().dtype(),
                device: Device::current()?,
                warnings: model.warnings(),
            },
            tokenizer: model.tokenizer().clone(),
            adapters: Arc::default(),
            unloaded: AtomicBool::new(false),
        })))
    }

    /// The model's properties.
    pub fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// The engine of the model.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Continues `prompt`; errors of the prompt and the options are the first event. Generations of
    /// one model advance together. The keys and values of a prefix that an earlier prompt or text
    /// has are used again.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn generate(
        &self,
        prompt: impl Into<Prompt>,
        options: GenerateOptions,
    ) -> Result<EventReceiver<Event>> {
        self.generate_with(prompt, options, RequestOptions::default())
    }

    /// Like [`generate`](Self::generate), with adapters or a draft model of this request. Errors of
    /// both are the first event.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn generate_with(
        &self,
        prompt: impl Into<Prompt>,
        options: GenerateOptions,
        with: RequestOptions,
    ) -> Result<EventReceiver<Event>> {
        self.start(None, prompt.into(), options, with)
    }

    /// Starts a generation, or an answer of the conversation `chat`.
    pub(super) fn start(
        &self,
        chat: Option<(u64, Arc<ShownChat>)>,
        prompt: Prompt,
        options: GenerateOptions,
        with: RequestOptions,
    ) -> Result<EventReceiver<Event>> {
        let (sender, events) = event_channel::channel(self.engine());
        let id = next_id();
        if let Some((_, shown)) = &chat {
            lock(&shown.requested).push(RequestedAnswer {
                id,
                prompt: prompt.text().to_owned(),
                stream: events.monitor(),
            });
        }
        let request = Request {
            id,
            model: self.id(),
            chat,
            prompt,
            options,
            with,
        };
        self.begin(request, sender)?;
        Ok(events)
    }

    /// Reads and generates a few tokens, see [`LanguageModel::warm_up`].
    ///
    /// # Errors
    /// As the events of a generation.
    pub async fn warm_up(&self) -> Result<()> {
        let id = self.id();
        self.engine()
            .call(move |state| state.model(id)?.warm_up())
            .await
    }

    /// Starts to warm up the model, and returns. Errors are dropped: the next generation reports
    /// them.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn begin_warm_up(&self) -> Result<()> {
        let id = self.id();
        self.engine().submit(move |state| {
            let _ = catch_panic(|| state.model(id)?.warm_up());
        })
    }

    /// Adds the adapter in `folder` (of this library, mlx-lm or PEFT) as `name` and makes it the
    /// only active adapter. Running generations continue without it.
    ///
    /// # Errors
    /// Errors of the folder; [`Error::Adapter`] if it does not fit,
    /// [`Error::Option`] if the name is taken.
    pub async fn add_adapter(&self, name: String, folder: PathBuf) -> Result<()> {
        self.change(move |model| {
            model
                .model_mut()
                .add_adapter(&name, &Adapter::load(&folder)?)
        })
        .await
    }

    /// Adds the adapters in folders by name, makes exactly those in `active` active, with their
    /// strengths, and blocks the calling thread.
    ///
    /// # Errors
    /// As [`add_adapter`](Self::add_adapter) and [`set_adapters`](Self::set_adapters).
    pub fn add_adapters_blocking(
        &self,
        folders: Vec<(String, PathBuf)>,
        active: Vec<(String, f32)>,
    ) -> Result<()> {
        let id = self.id();
        self.engine().call_blocking(move |state| {
            state.change_adapters(id, |model| {
                for (name, folder) in &folders {
                    let adapter = Adapter::load(folder)?;
                    model.model_mut().add_adapter(name, &adapter)?;
                }
                let active: Vec<_> = active.iter().map(|(name, s)| (name.as_str(), *s)).collect();
                model.model_mut().set_adapters(&active)
            })
        })
    }

    /// Makes exactly these adapters active, with their strengths. Their outputs are summed.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name or an invalid strength.
    pub async fn set_adapters(&self, active: Vec<(String, f32)>) -> Result<()> {
        self.change(move |model| {
            let active: Vec<_> = active.iter().map(|(name, s)| (name.as_str(), *s)).collect();
            model.model_mut().set_adapters(&active)
        })
        .await
    }

    /// Removes the adapter `name`.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name.
    pub async fn remove_adapter(&self, name: String) -> Result<()> {
        self.change(move |model| model.model_mut().remove_adapter(&name))
            .await
    }

    /// The names of all adapters, in the order they were added. Does not wait for the engine.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub fn adapters(&self) -> Result<Vec<String>> {
        self.check_loaded()?;
        Ok(lock(&self.0.adapters).all.clone())
    }

    /// The active adapters and their strengths. Does not wait for the engine.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub fn active_adapters(&self) -> Result<Vec<(String, f32)>> {
        self.check_loaded()?;
        Ok(lock(&self.0.adapters).active.clone())
    }

    /// Sets the limit of the model's [`PrefixCache`](crate::generation::PrefixCache), in bytes; 0
    /// keeps no keys and values of texts that ended. Default 256 MiB, on iOS 32 MiB.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn set_prefix_cache_limit(&self, bytes: usize) -> Result<()> {
        let id = self.id();
        self.engine().submit_now(move |state| {
            if let Some(loaded) = state.models.get_mut(&id) {
                loaded.prefixes.set_limit(bytes);
            }
        })
    }

    /// Fails once [`unload`](Self::unload) was called.
    pub(super) fn check_loaded(&self) -> Result<()> {
        if self.0.unloaded.load(Ordering::SeqCst) {
            return Err(Error::Unloaded);
        }
        Ok(())
    }

    /// Unloads the model and frees its memory. Work that uses it ends with
    /// [`Error::Unloaded`]. A second call has no effect.
    ///
    /// # Errors
    /// [`Error::Mlx`].
    pub async fn unload(&self) -> Result<()> {
        if self.0.unloaded.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let id = self.id();
        self.engine()
            .call_now(move |state| {
                if state.unload(id) {
                    memory::clear_cache()?;
                }
                Ok(())
            })
            .await
    }

    /// The engine's id of the model.
    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    /// The adapters as this handle shows them.
    pub(super) fn shared_adapters(&self) -> Arc<Mutex<AdapterNames>> {
        Arc::clone(&self.0.adapters)
    }

    async fn change(
        &self,
        change: impl FnOnce(&mut LanguageModel) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let id = self.id();
        self.engine()
            .call(move |state| state.change_adapters(id, change))
            .await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.unloaded.load(Ordering::SeqCst) {
            let id = self.id;
            // Fails only if the thread has ended.
            let _ = self.engine.submit_now(move |state| {
                if state.unload(id) {
                    let _ = memory::clear_cache();
                }
            });
        }
    }
}
