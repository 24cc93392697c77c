//! Text generation: options, events, and the task behind a stream.

use openelm_core::{
    self as core,
    generation::{Event, Generation, Sampling},
};

use crate::{
    count::count,
    error::{Error, Result},
    event_channel::{self, EventReceiver, EventSender},
    fault_injection,
    worker::{self, Models, Task},
};

/// Options of a generation. Mirrors `openelm_core::generation::GenerateOptions` and its `Sampling`.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core's fields of these names")]
pub struct GenerationOptions {
    pub max_tokens: u64,
    pub temperature: f32,
    pub top_k: u64,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    pub logprobs: u64,
    pub prefill_chunk: Option<u64>,
    pub ignore_eos: bool,
}

/// The core's defaults.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn default_generation_options() -> Result<GenerationOptions> {
    let options = core::generation::GenerateOptions::default();
    Ok(GenerationOptions {
        max_tokens: options.max_tokens as u64,
        temperature: options.sampling.temperature,
        top_k: options.sampling.top_k as u64,
        top_p: options.sampling.top_p,
        min_p: options.sampling.min_p,
        repetition_penalty: options.sampling.repetition_penalty,
        seed: options.sampling.seed,
        stop: options.stop,
        logprobs: options.logprobs as u64,
        prefill_chunk: options.prefill_chunk.map(|tokens| tokens as u64),
        ignore_eos: options.ignore_eos,
    })
}

/// An event of a [`GenerationStream`].
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::generation::Event")]
pub enum GenerationEvent {
    Prefill {
        processed: u64,
        total: u64,
    },
    Token {
        id: u32,
        text: String,
        logprob: Option<f32>,
        top_logprobs: Vec<TokenLogprob>,
    },
    Finished {
        reason: FinishReason,
        stats: GenerationStats,
    },
}

/// A token and its log-probability.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "documented by the record")]
pub struct TokenLogprob {
    pub id: u32,
    pub logprob: f32,
}

/// Mirrors `openelm_core::generation::FinishReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::generation::FinishReason")]
pub enum FinishReason {
    Eos,
    Stop,
    Length,
    Context,
    Cancelled,
}

/// Mirrors `openelm_core::generation::Stats`; times in seconds.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::generation::Stats")]
pub struct GenerationStats {
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub generated_tokens: u64,
    pub prefill_seconds: f64,
    pub decode_seconds: f64,
    pub seed: u64,
}

/// A running generation. Dropping it cancels it.
#[derive(Debug, uniffi::Object)]
pub struct GenerationStream {
    events: EventReceiver<GenerationEvent>,
}

#[uniffi::export]
impl GenerationStream {
    /// The next event; `None` after the last one or once cancelled.
    ///
    /// # Errors
    /// Errors of the generation. No event follows.
    pub async fn next(&self) -> Result<Option<GenerationEvent>> {
        self.events.next().await
    }

    /// Cancels the generation before its next token or prompt chunk.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.events.close();
        Ok(())
    }
}

impl GenerationStream {
    /// Continues `prompt` with the model `model`. With `chat`, `prompt` is the next message of that
    /// conversation.
    pub(crate) fn start(
        model: u64,
        chat: Option<u64>,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Self> {
        let (mut sender, events) = event_channel::channel();
        worker::submit(move |models| {
            let id = worker::next_id();
            let begun = worker::catch_panic(|| begin(models, id, model, chat, &prompt, options));
            match begun {
                Ok(generation) => models.tasks.push(Box::new(GenerationTask {
                    model,
                    chat,
                    id,
                    prompt,
                    generation: Some(generation),
                    sender,
                })),
                Err(error) => sender.send(Err(error)),
            }
        })?;
        Ok(Self { events })
    }
}

fn begin(
    models: &mut Models,
    id: u64,
    model: u64,
    chat: Option<u64>,
    prompt: &str,
    options: GenerationOptions,
) -> Result<Generation<'static>> {
    let Some(chat) = chat else {
        let model = models.model(model)?;
        return Ok(model.generate(prompt, options.into())?.into_owned());
    };
    let language_model = models.loaded.get(&model).ok_or_else(Error::unloaded)?;
    let slot = models.chats.get_mut(&chat).ok_or_else(Error::unloaded)?;
    if slot.answering.is_some() {
        return Err(Error::busy());
    }
    let generation = slot.chat.start(language_model, prompt, options.into())?;
    slot.answering = Some(id);
    Ok(generation.into_owned())
}

/// A generation on the worker's thread.
struct GenerationTask {
    /// Id of the model.
    model: u64,
    /// Id of the conversation, if the generation is an answer.
    chat: Option<u64>,
    /// Id of this generation.
    id: u64,
    prompt: String,
    /// `None` once it has ended.
    generation: Option<Generation<'static>>,
    sender: EventSender<GenerationEvent>,
}

impl GenerationTask {
    /// Adds the answer to the conversation, so that the next prompt can follow the last event.
    fn conclude(&mut self, models: &mut Models) {
        let generation = self.generation.take();
        let slot = self.chat.and_then(|chat| models.chats.get_mut(&chat));
        if let (Some(slot), Some(generation)) = (slot, generation) {
            slot.answering = None;
            slot.chat.finish(generation);
        }
    }
}

impl Task for GenerationTask {
    fn model(&self) -> u64 {
        self.model
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn is_ready(&mut self) -> bool {
        self.sender.flush()
    }

    fn turn(&mut self, models: &mut Models) -> bool {
        let Some(generation) = &mut self.generation else {
            return false;
        };
        match fault_injection::inject(&self.prompt).map(|()| generation.next()) {
            Ok(Some(Ok(event))) => {
                if matches!(event, Event::Finished { .. }) {
                    self.conclude(models);
                }
                self.sender.send(Ok(event.into()));
            }
            Ok(Some(Err(error))) => self.fail(error.into()),
            Ok(None) => return false,
            Err(error) => self.fail(error),
        }
        true
    }

    fn settle(&mut self) {
        if let Some(generation) = &self.generation
            && let Err(error) = generation.settle()
        {
            self.fail(error.into());
        }
    }

    fn fail(&mut self, error: Error) {
        self.generation = None;
        self.sender.send(Err(error));
    }

    fn abort(&mut self, error: Error) {
        self.generation = None;
        self.sender.replace(Err(error));
    }

    fn end(mut self: Box<Self>, models: &mut Models) {
        self.conclude(models);
        // Removes the prompt of a failed generation.
        if let Some(slot) = self.chat.and_then(|chat| models.chats.get_mut(&chat))
            && slot.answering == Some(self.id)
        {
            slot.chat.withdraw();
            slot.answering = None;
        }
    }
}

impl From<GenerationOptions> for core::generation::GenerateOptions {
    fn from(options: GenerationOptions) -> Self {
        Self {
            max_tokens: count(options.max_tokens),
            sampling: Sampling {
                temperature: options.temperature,
                top_k: count(options.top_k),
                top_p: options.top_p,
                min_p: options.min_p,
                repetition_penalty: options.repetition_penalty,
                seed: options.seed,
            },
            stop: options.stop,
            logprobs: count(options.logprobs),
            prefill_chunk: options.prefill_chunk.map(count),
            ignore_eos: options.ignore_eos,
            kv_cache: core::generation::KvCacheOptions::default(),
        }
    }
}

impl From<Event> for GenerationEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Prefill { processed, total } => Self::Prefill {
                processed: processed as u64,
                total: total as u64,
            },
            Event::Token(token) => {
                let top = token.top_logprobs.into_iter();
                Self::Token {
                    id: token.id,
                    text: token.text,
                    logprob: token.logprob,
                    top_logprobs: top
                        .map(|top| TokenLogprob {
                            id: top.id,
                            logprob: top.logprob,
                        })
                        .collect(),
                }
            }
            Event::Finished { reason, stats } => Self::Finished {
                reason: match reason {
                    core::generation::FinishReason::Eos => FinishReason::Eos,
                    core::generation::FinishReason::Stop => FinishReason::Stop,
                    core::generation::FinishReason::Length => FinishReason::Length,
                    core::generation::FinishReason::Context => FinishReason::Context,
                    core::generation::FinishReason::Cancelled => FinishReason::Cancelled,
                },
                stats: GenerationStats {
                    prompt_tokens: stats.prompt_tokens as u64,
                    cached_tokens: stats.cached_tokens as u64,
                    generated_tokens: stats.generated_tokens as u64,
                    prefill_seconds: stats.prefill.as_secs_f64(),
                    decode_seconds: stats.decode.as_secs_f64(),
                    seed: stats.seed,
                },
            },
        }
    }
}
