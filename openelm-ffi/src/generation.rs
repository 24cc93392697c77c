//! Generations: options, events, and the task behind a stream.

use openelm_core::{
    self as core,
    generation::{Event, Generation, Sampling},
};

use crate::{
    error::{EngineError, Result},
    fault,
    outbox::{self, Inbox, Outbox},
    worker::{self, Models, Task},
};

/// Options of one generation; those of `openelm_core::generation::GenerateOptions` and `Sampling`.
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

/// What a [`GenerationStream`] tells.
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
        top_logprobs: Vec<TokenChance>,
    },
    Finished {
        reason: FinishReason,
        stats: GenerationStats,
    },
}

/// A token and its log-probability.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "two words")]
pub struct TokenChance {
    pub id: u32,
    pub logprob: f32,
}

/// As `openelm_core::generation::FinishReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::generation::FinishReason")]
pub enum FinishReason {
    Eos,
    Stop,
    Length,
    Context,
    Cancelled,
}

/// As `openelm_core::generation::Stats`; times in seconds.
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

/// A running generation. Dropping it ends it.
#[derive(Debug, uniffi::Object)]
pub struct GenerationStream {
    events: Inbox<GenerationEvent>,
}

#[uniffi::export]
impl GenerationStream {
    /// The next event, `None` after the last one or once it is cancelled.
    ///
    /// # Errors
    /// What went wrong; nothing comes after it.
    pub async fn next(&self) -> Result<Option<GenerationEvent>> {
        self.events.next().await
    }

    /// Ends it before the next token or chunk of the prompt.
    ///
    /// # Errors
    /// None but a panic.
    pub fn cancel(&self) -> Result<()> {
        self.events.close();
        Ok(())
    }
}

impl GenerationStream {
    /// Continues `prompt` on the model `model`; with `chat`, as the next message of it.
    pub(crate) fn start(
        model: u64,
        chat: Option<u64>,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Self> {
        let (mut out, events) = outbox::channel();
        worker::submit(move |models, _turn| {
            let id = worker::number();
            let begun = worker::guard(|| begin(models, id, model, chat, &prompt, options));
            match begun {
                Ok(generation) => models.tasks.push(Box::new(Running {
                    model,
                    chat,
                    id,
                    prompt,
                    generation: Some(generation),
                    out,
                })),
                Err(error) => out.send(Err(error)),
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
    let Some(number) = chat else {
        return Ok(models
            .model(model)?
            .generate(prompt, options.into())?
            .into_owned());
    };
    let language_model = models
        .loaded
        .get(&model)
        .ok_or_else(EngineError::unloaded)?;
    let slot = models
        .chats
        .get_mut(&number)
        .ok_or_else(EngineError::unloaded)?;
    if slot.answering.is_some() {
        return Err(EngineError::busy());
    }
    let generation = slot.chat.start(language_model, prompt, options.into())?;
    slot.answering = Some(id);
    Ok(generation.into_owned())
}

/// A generation on the worker's thread.
struct Running {
    model: u64,
    chat: Option<u64>,
    /// Its own number.
    id: u64,
    prompt: String,
    /// `None` once it has ended.
    generation: Option<Generation<'static>>,
    out: Outbox<GenerationEvent>,
}

impl Running {
    /// Gives what was generated to the conversation, so that the reader of the last event can go on
    /// with it.
    fn conclude(&mut self, models: &mut Models) {
        let generation = self.generation.take();
        let slot = self.chat.and_then(|number| models.chats.get_mut(&number));
        if let (Some(slot), Some(generation)) = (slot, generation) {
            slot.answering = None;
            slot.chat.finish(generation);
        }
    }
}

impl Task for Running {
    fn model(&self) -> u64 {
        self.model
    }

    fn is_over(&self) -> bool {
        self.out.is_closed()
    }

    fn is_ready(&mut self) -> bool {
        self.out.has_room()
    }

    fn turn(&mut self, models: &mut Models) -> bool {
        let Some(generation) = &mut self.generation else {
            return false;
        };
        match fault::inject(&self.prompt).map(|()| generation.next()) {
            Ok(Some(Ok(event))) => {
                if matches!(event, Event::Finished { .. }) {
                    self.conclude(models);
                }
                self.out.send(Ok(event.into()));
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

    fn fail(&mut self, error: EngineError) {
        self.generation = None;
        self.out.send(Err(error));
    }

    fn abort(&mut self, error: EngineError) {
        self.generation = None;
        self.out.replace(Err(error));
    }

    fn end(mut self: Box<Self>, models: &mut Models) {
        self.conclude(models);
        // Of one that failed.
        if let Some(slot) = self.chat.and_then(|number| models.chats.get_mut(&number))
            && slot.answering == Some(self.id)
        {
            slot.chat.withdraw();
            slot.answering = None;
        }
    }
}

impl From<GenerationOptions> for core::generation::GenerateOptions {
    fn from(options: GenerationOptions) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
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
                        .map(|top| TokenChance {
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
