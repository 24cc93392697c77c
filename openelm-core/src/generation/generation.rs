//! Text generation as an iterator of events.
//!
//! The prompt is read in chunks; then each step's graph is built and started before the token of
//! the step before is read, so the device never waits for the host.

use std::{borrow::Cow, time::Instant};

use mlx_rs::{
    Array, Dtype,
    ops::{self, indexing::TryIndexOp},
    transforms::async_eval,
};

use super::{
    event::{Event, FinishReason, Stats, Token},
    prompt_cache::PromptCache,
    sampling::{Sampler, Sampling},
    stop::StopMatcher,
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    mlx::Device,
    model::Model,
    tokenizer::{Tokenizer, detokenizer::Detokenizer},
};

/// Options of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Largest number of tokens to generate. Default 256.
    pub max_tokens: usize,
    /// How tokens are chosen. Default greedy.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Report the log-probabilities of this many likeliest tokens at each step. Default 0: none.
    pub logprobs: usize,
    /// Tokens of the prompt to read at a time. `None`, the default, is 128 on a CPU, where
    /// smaller chunks save work above the diagonal, and 512 on a GPU.
    pub prefill_chunk: Option<usize>,
    /// Go on after the end-of-sequence token. Default false.
    pub ignore_eos: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: 0,
            prefill_chunk: None,
            ignore_eos: false,
        }
    }
}

/// A running generation. Dropping it ends it.
#[derive(Debug)]
pub struct Generation<'m> {
    model: Cow<'m, Model>,
    options: GenerateOptions,
    /// Length of the prompt, with which `cache` begins.
    prompt: usize,
    eos: u32,
    chunk: usize,
    /// Tokens that may be generated: `max_tokens`, or what the context still holds.
    limit: usize,
    /// Ids that may be drawn: those below.
    pieces: usize,
    cache: PromptCache,
    text: String,
    sampler: Sampler,
    detokenizer: Option<Detokenizer>,
    stops: StopMatcher,
    cancel: CancelHandle,
    state: State,
    stats: Stats,
    started: Instant,
}

#[derive(Debug)]
enum State {
    Prefill { processed: usize },
    Decode(Step),
    Finished(FinishReason),
    Done,
}

/// A step under way on the device.
#[derive(Debug)]
struct Step {
    /// u32 `[1]`.
    token: Array,
    logprobs: Option<StepLogprobs>,
}

/// Log-probabilities f32 `[V]`, and the ids of the likeliest, u32 `[N]`, likeliest first.
#[derive(Debug)]
struct StepLogprobs {
    all: Array,
    likeliest: Array,
}

impl<'m> Generation<'m> {
    /// Prepares to continue `prompt`, whose first token must be BOS. Without a tokenizer the
    /// events carry token ids and no text.
    ///
    /// # Errors
    /// [`Error::Option`] for a value outside its range or an empty prompt, and
    /// [`Error::PromptTooLong`] if the context has no room for a token after the prompt.
    pub fn new(
        model: &'m Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
    ) -> Result<Self> {
        Self::with_cache(model, tokenizer, prompt, options, PromptCache::default())
    }

    /// As [`new`](Self::new), but tokens that `cache` has read with this model and its active
    /// adapters, and with which `prompt` begins, are not read again. The last token always is.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_cache(
        model: &'m Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
        cache: PromptCache,
    ) -> Result<Self> {
        let config = model.config();
        let (context, vocab) = (config.max_context_length(), config.vocab_size());
        if prompt.is_empty() {
            return Err(Error::Option {
                option: "prompt",
                problem: "it is empty".into(),
            });
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
            return Err(Error::Option {
                option: "prompt",
                problem,
            });
        }
        if prompt.len() >= context {
            return Err(Error::PromptTooLong {
                tokens: prompt.len(),
                context,
            });
        }
        // CoreNet pads the embedding to 32,128 rows; ids without a piece are never drawn.
        let pieces = tokenizer.map_or(vocab, |tokenizer| tokenizer.vocab_size().min(vocab));
        if options.logprobs > pieces {
            let problem = format!("expected at most the vocabulary's {pieces}");
            return Err(Error::Option {
                option: "logprobs",
                problem,
            });
        }
        if options.prefill_chunk == Some(0) {
            let problem = "expected at least 1, found 0".into();
            return Err(Error::Option {
                option: "prefill_chunk",
                problem,
            });
        }
        let chunk = match (options.prefill_chunk, Device::current()?) {
            (Some(chunk), _) => chunk,
            (None, Device::Cpu) => 128,
            (None, Device::Gpu) => 512,
        };
        let sampler = Sampler::new(&options.sampling, pieces, &prompt)?;
        let detokenizer = tokenizer.map(|tokenizer| tokenizer.detokenizer(&prompt));
        let (limit, length) = (options.max_tokens.min(context - prompt.len()), prompt.len());
        let cache = cache.continue_with(model, prompt);
        let processed = cache.offset();
        let stats = Stats {
            prompt_tokens: length,
            cached_tokens: processed,
            seed: sampler.seed(),
            ..Stats::default()
        };
        Ok(Self {
            model: Cow::Borrowed(model),
            eos: config.eos_token_id() as u32,
            chunk,
            limit,
            pieces,
            cache,
            text: String::new(),
            sampler,
            detokenizer,
            stops: StopMatcher::new(&options.stop),
            cancel: CancelHandle::default(),
            state: State::Prefill { processed },
            stats,
            started: Instant::now(),
            prompt: length,
            options,
        })
    }

    /// The same generation with a model of its own, which shares the weights and keeps the
    /// adapters that are active now.
    pub fn into_owned(self) -> Generation<'static> {
        Generation {
            model: Cow::Owned(self.model.into_owned()),
            options: self.options,
            prompt: self.prompt,
            eos: self.eos,
            chunk: self.chunk,
            limit: self.limit,
            pieces: self.pieces,
            cache: self.cache,
            text: self.text,
            sampler: self.sampler,
            detokenizer: self.detokenizer,
            stops: self.stops,
            cancel: self.cancel,
            state: self.state,
            stats: self.stats,
            started: self.started,
        }
    }

    /// The text so far: that of all events together.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was read and written so far, for a generation whose prompt begins with it.
    pub fn into_cache(self) -> PromptCache {
        self.cache
    }

    /// Waits for what the device has under way, so that it rests until the next event is asked
    /// for: the system forbids its use to an app in the background.
    ///
    /// # Errors
    /// [`Error::Mlx`] if the step fails.
    pub fn settle(&self) -> Result<()> {
        match &self.state {
            State::Decode(step) => Ok(step.token.eval()?),
            _ => Ok(()),
        }
    }

    /// A handle that cancels this generation from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    fn advance(&mut self) -> Result<Option<Event>> {
        let live = matches!(self.state, State::Prefill { .. } | State::Decode(_));
        if live && self.cancel.is_cancelled() {
            self.finish(FinishReason::Cancelled);
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Prefill { processed } => self.prefill(processed).map(Some),
            State::Decode(step) => self.decode(step).map(Some),
            State::Finished(reason) => Ok(Some(Event::Finished {
                reason,
                stats: self.stats,
            })),
            State::Done => Ok(None),
        }
    }

    /// Reads the next chunk of the prompt; with the last one, starts the first token's step.
    fn prefill(&mut self, processed: usize) -> Result<Event> {
        if processed == self.stats.cached_tokens {
            self.started = Instant::now();
        }
        let total = self.prompt;
        let end = total.min(processed + self.chunk);
        let chunk = &self.cache.tokens()[processed..end];
        let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32]);
        let hidden = self.model.hidden(&tokens, self.cache.cache_mut())?;
        if end < total {
            // Evaluating the hidden states would run the last feed-forward block for nothing.
            self.cache.cache_mut().eval()?;
            self.state = State::Prefill { processed: end };
        } else if self.limit == 0 {
            self.finish(FinishReason::Length);
        } else {
            let last = hidden.try_index((.., -1, ..))?;
            let step = self.start(&last)?;
            self.state = State::Decode(step);
        }
        Ok(Event::Prefill {
            processed: end,
            total,
        })
    }

    /// Starts the step that chooses a token from the last hidden state, `[1, D]`.
    fn start(&mut self, hidden: &Array) -> Result<Step> {
        let logits = self
            .model
            .logits(hidden)?
            .flatten(None, None)?
            .try_index(..self.pieces as i32)?
            .as_dtype(Dtype::Float32)?;
        let token = self.sampler.choose(&logits)?;
        let logprobs = match self.options.logprobs {
            0 => None,
            n => {
                let all = logits.subtract(logits.logsumexp(true)?)?;
                let order = ops::argsort_axis(all.negative()?, 0)?;
                Some(StepLogprobs {
                    likeliest: order.try_index(..n as i32)?,
                    all,
                })
            }
        };
        let step = Step { token, logprobs };
        async_eval(step.arrays())?;
        Ok(step)
    }

    /// Starts the next step, then reads the token of `step`.
    fn decode(&mut self, step: Step) -> Result<Event> {
        let generated = self.stats.generated_tokens + 1;
        let next = if generated < self.limit {
            let hidden = self
                .model
                .hidden(&step.token.reshape(&[1, 1])?, self.cache.cache_mut())?;
            Some(self.start(&hidden.try_index((.., -1, ..))?)?)
        } else {
            None
        };

        let id = step.token.try_item_exact::<u32>()?;
        self.cache.push(id);
        self.stats.generated_tokens = generated;
        let elapsed = self.started.elapsed();
        if generated == 1 {
            self.stats.prefill = elapsed;
        }
        self.stats.decode = elapsed.saturating_sub(self.stats.prefill);

        let ended = id == self.eos && !self.options.ignore_eos;
        let piece = match &mut self.detokenizer {
            Some(detokenizer) if !ended => detokenizer.push(id)?,
            _ => String::new(),
        };
        let (mut text, stopped) = self.stops.push(&piece);
        let mut reason = match next {
            _ if ended => Some(FinishReason::Eos),
            _ if stopped => Some(FinishReason::Stop),
            None if generated < self.options.max_tokens => Some(FinishReason::Context),
            None => Some(FinishReason::Length),
            Some(_) => None,
        };
        if reason.is_some() && !stopped {
            let rest = self
                .detokenizer
                .as_mut()
                .map(Detokenizer::finish)
                .unwrap_or_default();
            let (tail, stopped) = self.stops.push(&rest);
            text += &tail;
            if stopped {
                reason = Some(FinishReason::Stop);
            } else {
                text += &self.stops.finish();
            }
        }
        match (reason, next) {
            (None, Some(next)) => self.state = State::Decode(next),
            (reason, _) => self.finish(reason.unwrap_or(FinishReason::Length)),
        }
        let (logprob, top_logprobs) = match &step.logprobs {
            Some(logprobs) => {
                let (logprob, top) = logprobs.read(id)?;
                (Some(logprob), top)
            }
            None => (None, Vec::new()),
        };
        self.text.push_str(&text);
        Ok(Event::Token(Token {
            id,
            text,
            logprob,
            top_logprobs,
        }))
    }

    fn finish(&mut self, reason: FinishReason) {
        self.state = State::Finished(reason);
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl Step {
    fn arrays(&self) -> Vec<&Array> {
        let logprobs = self.logprobs.iter().flat_map(|l| [&l.all, &l.likeliest]);
        std::iter::once(&self.token).chain(logprobs).collect()
    }
}

impl Drop for Step {
    /// Waits for a step nobody read: MLX must be at rest when its last array goes.
    fn drop(&mut self) {
        let _ = self.token.eval();
    }
}

impl StepLogprobs {
    fn read(&self, id: u32) -> Result<(f32, Vec<(u32, f32)>)> {
        let logprob = self.all.try_index(id as i32)?.try_item_exact::<f32>()?;
        let values = self.all.take(&self.likeliest)?;
        let ids = self.likeliest.to_vec_exact::<u32>()?;
        Ok((
            logprob,
            ids.into_iter().zip(values.to_vec_exact::<f32>()?).collect(),
        ))
    }
}
