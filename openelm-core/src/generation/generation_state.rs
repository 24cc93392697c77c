//! The state of a generation, without its model.
//!
//! The prompt is read in chunks; then each step's graph is built and started before the token of
//! the previous step is read, so the device does not wait for the host.

use std::time::Instant;

use mlx_rs::{
    Array, Dtype,
    ops::{self, indexing::TryIndexOp},
};

use super::{
    eos_token::end_tokens,
    event::{Event, FinishReason, Stats, Token, TokenLogprob},
    options::{GenerateOptions, LogprobsOf, default_prefill_chunk},
    prompt_cache::PromptCache,
    sampling::{Sampler, SamplerVocabulary},
    stop::StopMatcher,
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    mlx::{
        Device,
        cache_policy::{self, DeviceWork},
        evaluation,
        recovery::recovering,
    },
    model::Model,
    tokenizer::{Tokenizer, detokenizer::Detokenizer},
};

/// A generation without its model, which is an argument of every call and must not change.
#[derive(Debug)]
pub(super) struct GenerationState {
    options: GenerateOptions,
    /// Length of the prompt, the first tokens of `cache`.
    prompt: usize,
    end_tokens: Vec<u32>,
    chunk: usize,
    /// Limit of generated tokens: `max_tokens`, or the free positions of the context.
    limit: usize,
    /// Limit of the ids that may be drawn, exclusive.
    pieces: usize,
    cache: PromptCache,
    text: String,
    sampler: Sampler,
    detokenizer: Option<Detokenizer>,
    stops: StopMatcher,
    cancel: CancelHandle,
    /// Logits of zeros were examined: they are the model's, and not of a norm that overflowed.
    zeros: bool,
    phase: Phase,
    stats: Stats,
    started: Instant,
    /// From the first event to the last; dropped after the step in `phase`.
    work: Option<DeviceWork>,
}

#[derive(Debug)]
enum Phase {
    Prefill { processed: usize },
    Decode(Step),
    Finished(FinishReason),
    Done,
}

/// A step in progress on the device.
#[derive(Debug)]
struct Step {
    /// The token, u32 `[1]`.
    token: Array,
    /// Sum of the logits, f32 scalar: shows NaN and infinity for one operation per step.
    sum: Array,
    /// [`Choice::largest`](super::sampling::Choice::largest).
    largest: Option<Array>,
    logprobs: Option<StepLogprobs>,
}

/// Log-probabilities, computed in the step: an operation made later would wait for the next step.
#[derive(Debug)]
struct StepLogprobs {
    /// The chosen token's, f32 `[1]`.
    chosen: Array,
    /// The most likely ids, u32 `[N]`, most likely first.
    likeliest: Array,
    /// The log-probabilities of `likeliest`, f32 `[N]`.
    values: Array,
}

impl GenerationState {
    /// Like [`Generation::with_cache`](super::Generation::with_cache).
    pub(super) fn new(
        model: &Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
        cache: PromptCache,
    ) -> Result<Self> {
        let config = model.config();
        let (context, vocab) = (config.max_context_length(), config.vocab_size());
        // CoreNet pads the embedding to 32,128 rows; ids without a piece must not be drawn.
        let pieces = tokenizer.map_or(vocab, |tokenizer| tokenizer.vocab_size().min(vocab));
        check(&prompt, &options, context, vocab, pieces)?;
        let chunk = match options.prefill_chunk {
            Some(chunk) => chunk,
            None => default_prefill_chunk(Device::current()?),
        };
        let eos = config.eos_token_id() as u32;
        let end_tokens = end_tokens(eos, &options.extra_eos_tokens, tokenizer, vocab)?;
        let vocabulary = SamplerVocabulary {
            size: pieces,
            tokenizer,
            end_tokens: &end_tokens,
        };
        let sampler = Sampler::new(&options.sampling, &vocabulary, &prompt)?;
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
            end_tokens,
            chunk,
            limit,
            pieces,
            cache,
            text: String::new(),
            sampler,
            detokenizer,
            stops: StopMatcher::new(&options.stop),
            cancel: CancelHandle::default(),
            zeros: false,
            phase: Phase::Prefill { processed },
            stats,
            started: Instant::now(),
            prompt: length,
            options,
            work: None,
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_cache(self) -> PromptCache {
        self.cache
    }

    pub(super) fn settle(&self) -> Result<()> {
        match &self.phase {
            Phase::Decode(step) => Ok(step.token.eval()?),
            _ => Ok(()),
        }
    }

    pub(super) fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// The next event; `None` after the last, and after an error.
    pub(super) fn advance(&mut self, model: &Model) -> Result<Option<Event>> {
        let event = recovering(|| self.next_event(model));
        if !matches!(self.phase, Phase::Prefill { .. } | Phase::Decode(_)) {
            self.work = None;
        }
        event
    }

    fn next_event(&mut self, model: &Model) -> Result<Option<Event>> {
        let live = matches!(self.phase, Phase::Prefill { .. } | Phase::Decode(_));
        if live && self.cancel.is_cancelled() {
            self.phase = Phase::Finished(FinishReason::Cancelled);
        }
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Prefill { processed } => self.prefill(model, processed).map(Some),
            Phase::Decode(step) => self.decode(model, step).map(Some),
            Phase::Finished(reason) => Ok(Some(Event::Finished {
                reason,
                stats: self.stats,
            })),
            Phase::Done => Ok(None),
        }
    }

    /// Reads the next chunk of the prompt; the last one also starts the first token's step.
    fn prefill(&mut self, model: &Model, processed: usize) -> Result<Event> {
        if processed == self.stats.cached_tokens {
            self.started = Instant::now();
        }
        self.work_in(cache_policy::Phase::Prompt)?;
        let total = self.prompt;
        let end = total.min(processed.saturating_add(self.chunk));
        let chunk = &self.cache.tokens()[processed..end];
        let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32]);
        let hidden = model.hidden(&tokens, self.cache.cache_mut())?;
        if end < total {
            // Evaluating the hidden states would also run the last FFN, which is not needed.
            self.cache.cache_mut().eval()?;
            self.phase = Phase::Prefill { processed: end };
        } else if self.limit == 0 {
            self.phase = Phase::Finished(FinishReason::Length);
        } else {
            let last = hidden.try_index((.., -1, ..))?;
            self.phase = Phase::Decode(self.start(model, &last)?);
        }
        Ok(Event::Prefill {
            processed: end,
            total,
        })
    }

    /// Starts the step that chooses a token from the last hidden state, `[1, D]`.
    fn start(&mut self, model: &Model, hidden: &Array) -> Result<Step> {
        let logits = model
            .logits(hidden)?
            .flatten(None, None)?
            .try_index(..self.pieces as i32)?
            .as_dtype(Dtype::Float32)?;
        let choice = self.sampler.choice(&logits, None)?;
        let logprobs = match self.options.logprobs {
            0 => None,
            n => {
                let reported = match self.options.logprobs_of {
                    LogprobsOf::Model => logits.clone(),
                    LogprobsOf::Sampler => choice.logits()?,
                };
                let all = reported.subtract(reported.logsumexp(true)?)?;
                let order = ops::argsort_axis(all.negative()?, 0)?;
                let likeliest = order.try_index(..n as i32)?;
                Some(StepLogprobs {
                    chosen: all.take(&choice.token)?,
                    values: all.take(&likeliest)?,
                    likeliest,
                })
            }
        };
        let sum = logits.sum(None)?;
        let step = Step {
            token: choice.token,
            sum,
            largest: choice.largest,
            logprobs,
        };
        evaluation::start(step.arrays())?;
        Ok(step)
    }

    /// Starts the next step, then reads the token of `step`.
    fn decode(&mut self, model: &Model, step: Step) -> Result<Event> {
        self.work_in(cache_policy::Phase::Decode)?;
        let generated = self.stats.generated_tokens + 1;
        if self.sampler.reads_history() {
            self.sampler.accept(step.token.try_item_exact::<u32>()?);
        }
        let next = if generated < self.limit {
            let token = step.token.reshape(&[1, 1])?;
            let hidden = model.hidden(&token, self.cache.cache_mut())?;
            Some(self.start(model, &hidden.try_index((.., -1, ..))?)?)
        } else {
            None
        };

        let id = step.token.try_item_exact::<u32>()?;
        let sum = evaluation::finished::<f32>(&step.sum)?;
        self.check_finite(model, sum.first().copied().unwrap_or(f32::NAN))?;
        if let Some(largest) = &step.largest
            && evaluation::finished::<f32>(largest)? == [f32::NEG_INFINITY]
        {
            return Err(self.sampler.nothing_allowed());
        }
        self.cache.push(id);
        self.stats.generated_tokens = generated;
        let elapsed = self.started.elapsed();
        if generated == 1 {
            self.stats.prefill = elapsed;
        }
        self.stats.decode = elapsed.saturating_sub(self.stats.prefill);
        if let Some(work) = &self.work {
            work.after_token(generated)?;
        }

        let (text, reason) = self.text_of(id, next.is_none())?;
        self.phase = match (reason, next) {
            (None, Some(next)) => Phase::Decode(next),
            (reason, _) => Phase::Finished(reason.unwrap_or(FinishReason::Length)),
        };
        let (logprob, top_logprobs) = match &step.logprobs {
            Some(logprobs) => (logprobs.chosen()?, logprobs.likeliest()?),
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

    /// Begins the work on the device, and its next phase.
    fn work_in(&mut self, phase: cache_policy::Phase) -> Result<()> {
        if self.work.is_none() {
            self.work = Some(DeviceWork::begin()?);
        }
        match &self.work {
            Some(work) => work.enter(phase),
            None => Ok(()),
        }
    }

    /// Refuses logits with the `sum` that are not finite, or zeros because a norm overflowed. The
    /// cache, whose keys and values are not finite then, is dropped.
    fn check_finite(&mut self, model: &Model, sum: f32) -> Result<()> {
        if sum.is_finite() && (sum != 0.0 || self.zeros) {
            return Ok(());
        }
        let found = model.non_finite(self.cache.tokens())?;
        if found.is_none() && sum.is_finite() {
            self.zeros = true;
            return Ok(());
        }
        self.cache = PromptCache::default();
        Err(found.unwrap_or_else(|| model.non_finite_logits()))
    }

    /// The text that is final after the token `id`, and the reason if the generation ends with it;
    /// it ends with the `last` token that the limit allows.
    fn text_of(&mut self, id: u32, last: bool) -> Result<(String, Option<FinishReason>)> {
        let ended = self.end_tokens.contains(&id) && !self.options.ignore_eos;
        let piece = match &mut self.detokenizer {
            // A vocabulary may have gaps: such an id has no text.
            Some(detokenizer) if !ended && detokenizer.has_token(id) => detokenizer.push(id)?,
            _ => String::new(),
        };
        let (mut text, stopped) = self.stops.push(&piece);
        let reason = if ended {
            FinishReason::Eos
        } else if stopped {
            FinishReason::Stop
        } else if !last {
            return Ok((text, None));
        } else if self.stats.generated_tokens < self.options.max_tokens {
            FinishReason::Context
        } else {
            FinishReason::Length
        };
        if stopped {
            return Ok((text, Some(reason)));
        }
        let rest = self.detokenizer.as_mut().map(Detokenizer::finish);
        let (tail, stopped) = self.stops.push(&rest.unwrap_or_default());
        text += &tail;
        if stopped {
            return Ok((text, Some(FinishReason::Stop)));
        }
        text += &self.stops.finish();
        Ok((text, Some(reason)))
    }
}

/// Checks a prompt and options for a model with `context` positions and `vocab` ids, of which
/// those below `pieces` may be drawn.
fn check(
    prompt: &[u32],
    options: &GenerateOptions,
    context: usize,
    vocab: usize,
    pieces: usize,
) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::empty_prompt());
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
        let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
        return Err(Error::option("prompt", problem));
    }
    if prompt.len() >= context {
        return Err(Error::PromptTooLong {
            tokens: prompt.len(),
            context,
        });
    }
    if options.logprobs > pieces {
        let problem = format!("expected at most the vocabulary's {pieces}");
        return Err(Error::option("logprobs", problem));
    }
    if options.prefill_chunk == Some(0) {
        return Err(Error::at_least("prefill_chunk", 1, 0));
    }
    Ok(())
}

impl Step {
    fn arrays(&self) -> Vec<&Array> {
        let logprobs = self.logprobs.iter();
        let logprobs = logprobs.flat_map(|l| [&l.chosen, &l.likeliest, &l.values]);
        [&self.token, &self.sum]
            .into_iter()
            .chain(&self.largest)
            .chain(logprobs)
            .collect()
    }
}

impl Drop for Step {
    /// Waits for an unread step: MLX must be idle when its last array is dropped.
    fn drop(&mut self) {
        let _ = self.token.eval();
    }
}

impl StepLogprobs {
    /// The log-probability of the chosen token.
    fn chosen(&self) -> Result<Option<f32>> {
        Ok(evaluation::finished::<f32>(&self.chosen)?.first().copied())
    }

    /// The most likely tokens, most likely first, without excluded ones.
    fn likeliest(&self) -> Result<Vec<TokenLogprob>> {
        let logprobs = evaluation::finished::<f32>(&self.values)?;
        let ids = evaluation::finished::<u32>(&self.likeliest)?;
        let pairs = ids.into_iter().zip(logprobs);
        Ok(pairs
            .filter(|(_, logprob)| *logprob != f32::NEG_INFINITY)
            .map(|(id, logprob)| TokenLogprob { id, logprob })
            .collect())
    }
}
