//! The state of one sequence, without its model.
//!
//! A turn has three parts: the sequence gives the tokens of its next pass through the network
//! ([`next_pass`](Sequence::next_pass)), receives the logits ([`passed`](Sequence::passed)), and
//! reads the step before ([`read`](Sequence::read)). The prompt is passed in chunks. Then each
//! step's graph is built and started before the token of the previous step is read, so the device
//! does not wait for the host.

use std::{collections::VecDeque, time::Instant};

use mlx_rs::Array;

use super::{
    eos_token::end_tokens,
    event::{Event, FinishReason, Stats, Token},
    generated_text::GeneratedText,
    options::{GenerateOptions, default_prefill_chunk},
    prompt_cache::{PromptCache, UNKNOWN},
    sampling::{Sampler, SamplerVocabulary},
    step::{PendingLogits, Step},
};
use crate::{
    cancel::CancelHandle,
    constraint::{AtLimit, Constraint},
    error::{Error, Result},
    mlx::{
        Device,
        cache_policy::{self, DeviceWork},
        evaluation,
    },
    model::{KvCache, Model},
    tokenizer::Tokenizer,
};

/// Number of the last tokens in which a text may be closed: before, its end is not computed.
const CLOSING_WINDOW: usize = 64;
/// Tokens left when a text is closed: the next token may make its end longer.
const CLOSING_MARGIN: usize = 8;

/// A sequence without its model, which is an argument of every call and must not change.
#[derive(Debug)]
pub(super) struct Sequence {
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
    sampler: Sampler,
    constraint: Option<Constraint>,
    /// The tokens that close the text.
    closing: VecDeque<u32>,
    text: GeneratedText,
    cancel: CancelHandle,
    /// Logits of zeros were examined: they are the model's, and not of a norm that overflowed.
    zeros: bool,
    phase: Phase,
    /// Events and the last error that were not taken yet.
    events: VecDeque<Result<Event>>,
    stats: Stats,
    started: Instant,
    /// From the first turn to the last; dropped after the steps in `phase`.
    work: Option<DeviceWork>,
}

#[derive(Debug)]
enum Phase {
    Prefill {
        processed: usize,
    },
    Decode {
        /// The step that is read next.
        step: Step,
        /// What follows it, once its pass was made.
        next: Option<Next>,
    },
    Done,
}

/// What follows a step.
#[derive(Debug)]
enum Next {
    /// The next step, in progress.
    Step(Step),
    /// The logits of the next step, f32 `[V]`, in progress: its choice needs the token of the step
    /// before on the host.
    Logits(PendingLogits),
}

/// The tokens of a sequence in the next pass through the network.
#[derive(Debug)]
pub(super) struct Pass {
    /// Tokens, u32 `[1, L]`, which may not be evaluated yet.
    pub(super) tokens: Array,
    /// The logits of the last token are needed.
    pub(super) logits: bool,
}

impl Pass {
    /// Number of tokens, `L`.
    pub(super) fn length(&self) -> usize {
        self.tokens.dim(1) as usize
    }
}

impl Sequence {
    /// Like [`Generation::with_cache`](super::Generation::with_cache).
    pub(super) fn new(
        model: &Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
        cache: PromptCache,
    ) -> Result<Self> {
        let config = model.config();
        let vocab = config.vocab_size();
        // CoreNet pads the embedding to 32,128 rows; ids without a piece must not be drawn.
        let pieces = tokenizer.map_or(vocab, |tokenizer| tokenizer.vocab_size().min(vocab));
        check(&prompt, &options, &cache, model, pieces)?;
        let chunk = match options.prefill_chunk {
            Some(chunk) => chunk,
            None => default_prefill_chunk(Device::current()?),
        };
        let unknown = prompt.iter().rposition(|&id| id == UNKNOWN);
        let known = prompt.get(unknown.map_or(0, |last| last + 1)..);
        let known = known.unwrap_or_default();
        let eos = config.eos_token_id() as u32;
        let end_tokens = end_tokens(eos, &options.extra_eos_tokens, tokenizer, vocab)?;
        let vocabulary = SamplerVocabulary {
            size: pieces,
            tokenizer,
            end_tokens: &end_tokens,
        };
        let sampler = Sampler::new(&options.sampling, &vocabulary, known)?;
        let constraint = constraint(tokenizer, known, &options, eos)?;
        let text = GeneratedText::new(tokenizer, known, &options.stop);
        let length = prompt.len();
        let limit = match context(model, &options) {
            Some(context) => options.max_tokens.min(context - length),
            None => options.max_tokens,
        };
        let cache = cache.continue_with(model, prompt, &options.kv_cache)?;
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
            sampler,
            constraint,
            closing: VecDeque::new(),
            text,
            cancel: CancelHandle::default(),
            zeros: false,
            phase: Phase::Prefill { processed },
            events: VecDeque::new(),
            stats,
            started: Instant::now(),
            prompt: length,
            options,
            work: None,
        })
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_str()
    }

    pub(super) fn into_cache(self) -> PromptCache {
        self.cache
    }

    pub(super) fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Waits for the steps in progress.
    pub(super) fn settle(&self) -> Result<()> {
        match &self.phase {
            Phase::Decode { step, next } => match next {
                Some(Next::Step(next)) => next.settle(),
                Some(Next::Logits(logits)) => logits.settle(),
                None => step.settle(),
            },
            _ => Ok(()),
        }
    }

    /// The next event or the last error, if there is one.
    pub(super) fn pop_event(&mut self) -> Option<Result<Event>> {
        self.events.pop_front()
    }

    /// True if a turn is needed for the next event.
    pub(super) fn is_live(&self) -> bool {
        !self.has_events() && !self.is_done()
    }

    /// True if events were not taken yet.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Number of the prompt's tokens in the next pass.
    pub(super) fn prompt_tokens_of_turn(&self) -> usize {
        match self.phase {
            Phase::Prefill { processed } => self.end_of_chunk(processed) - processed,
            _ => 0,
        }
    }

    /// True if no further turn is needed.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Begins a turn and returns the tokens of its pass; `None` if it has none.
    pub(super) fn next_pass(&mut self) -> Result<Option<Pass>> {
        if self.cancel.is_cancelled() {
            self.finish(FinishReason::Cancelled);
        }
        match &self.phase {
            Phase::Prefill { processed } => {
                let processed = *processed;
                if processed == self.stats.cached_tokens {
                    self.started = Instant::now();
                }
                self.work_in(cache_policy::Phase::Prompt)?;
                let end = self.end_of_chunk(processed);
                let chunk = &self.cache.tokens()[processed..end];
                Ok(Some(Pass {
                    tokens: Array::from_slice(chunk, &[1, chunk.len() as i32]),
                    logits: end == self.prompt && self.limit > 0,
                }))
            }
            Phase::Decode { step, .. } => {
                let tokens = step.token().reshape(&[1, 1])?;
                self.work_in(cache_policy::Phase::Decode)?;
                let more = self.stats.generated_tokens + 1 < self.limit;
                Ok(more.then_some(Pass {
                    tokens,
                    logits: true,
                }))
            }
            Phase::Done => Ok(None),
        }
    }

    /// The keys and values, to which the pass adds those of its tokens.
    pub(super) fn kv_cache(&mut self) -> &mut KvCache {
        self.cache.cache_mut()
    }

    /// Largest number of ids that may be drawn.
    pub(super) fn pieces(&self) -> usize {
        self.pieces
    }

    /// True if the next turn reads a step.
    pub(super) fn is_decoding(&self) -> bool {
        matches!(self.phase, Phase::Decode { .. })
    }

    /// Takes the result of the pass: `logits`, f32 `[V]`, if they were needed. Nothing is
    /// evaluated; [`started`](Self::started) has what must be.
    pub(super) fn passed(&mut self, logits: Option<&Array>) -> Result<()> {
        let processed = match (&mut self.phase, logits) {
            (Phase::Decode { next, .. }, Some(logits)) => {
                let waits = self.constraint.is_some() || self.sampler.reads_history();
                *next = Some(if waits {
                    Next::Logits(PendingLogits::new(logits))
                } else {
                    Next::Step(step(&self.options, &mut self.sampler, logits, None)?)
                });
                return Ok(());
            }
            (Phase::Prefill { processed }, _) => *processed,
            _ => return Ok(()),
        };
        let processed = self.end_of_chunk(processed);
        self.events.push_back(Ok(Event::Prefill {
            processed,
            total: self.prompt,
        }));
        match logits {
            Some(logits) => {
                let allowed = self.allowed()?;
                let allowed = allowed.as_ref();
                let step = step(&self.options, &mut self.sampler, logits, allowed)?;
                self.phase = Phase::Decode { step, next: None };
            }
            None if processed < self.prompt => self.phase = Phase::Prefill { processed },
            None => self.finish(FinishReason::Length),
        }
        Ok(())
    }

    /// The arrays whose evaluation must be started after [`passed`](Self::passed).
    pub(super) fn started(&self) -> Vec<&Array> {
        match &self.phase {
            // Evaluating the hidden states would also run the last FFN, which is not needed.
            Phase::Prefill { .. } => self.cache.arrays().collect(),
            Phase::Decode { step, next: None } => step.arrays().collect(),
            Phase::Decode {
                next: Some(next), ..
            } => match next {
                Next::Step(step) => step.arrays().collect(),
                Next::Logits(logits) => vec![logits.as_array()],
            },
            Phase::Done => Vec::new(),
        }
    }

    /// Waits for the chunk of the prompt in progress, so that no more than one is.
    pub(super) fn wait_for_chunk(&self) -> Result<()> {
        match &self.phase {
            Phase::Prefill { .. } => self.cache.eval(),
            _ => Ok(()),
        }
    }

    /// Reads the step before the last pass.
    pub(super) fn read(&mut self, model: &Model) -> Result<()> {
        let Phase::Decode { step, next } = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        let values = step.read()?;
        self.check_finite(model, values.sum)?;
        if values.nothing_allowed {
            return Err(self.sampler.nothing_allowed());
        }
        let id = values.id;
        self.cache.push(id);
        self.count_token()?;

        let end = self.reason_to_end(id, next.is_none());
        let (text, reason) = self.text.push(id, end)?;
        let token = Token {
            id,
            text,
            logprob: values.logprob,
            top_logprobs: values.top_logprobs,
        };
        self.events.push_back(Ok(Event::Token(token)));
        let step = match (reason, next) {
            (None, Some(Next::Step(step))) => step,
            (None, Some(Next::Logits(logits))) => {
                self.sampler.accept(id);
                if let Some(constraint) = &mut self.constraint {
                    constraint.accept(id)?;
                }
                // The device computes the logits meanwhile.
                let allowed = self.allowed()?;
                let (logits, allowed) = (logits.as_array(), allowed.as_ref());
                let step = self::step(&self.options, &mut self.sampler, logits, allowed)?;
                evaluation::start(step.arrays())?;
                step
            }
            (reason, _) => {
                if matches!(reason, Some(FinishReason::Length | FinishReason::Context)) {
                    self.check_complete(id)?;
                }
                self.finish(reason.unwrap_or(FinishReason::Length));
                return Ok(());
            }
        };
        self.phase = Phase::Decode { step, next: None };
        Ok(())
    }

    /// The tokens that the constraint allows next, bool `[V]`.
    fn allowed(&mut self) -> Result<Option<Array>> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(None);
        };
        let left = self.limit.saturating_sub(self.stats.generated_tokens);
        if self.options.at_limit == AtLimit::Close
            && self.closing.is_empty()
            && left <= CLOSING_WINDOW
            && let Some(ids) = constraint.closing(left)?
            && ids.len() + CLOSING_MARGIN >= left
        {
            self.closing = ids.into();
        }
        if let Some(id) = self.closing.pop_front() {
            let only: Vec<bool> = (0..self.pieces).map(|other| other == id as usize).collect();
            return Ok(Some(Array::from_slice(&only, &[self.pieces as i32])));
        }
        Ok(Some(constraint.mask()?.to_array(self.pieces)))
    }

    /// Refuses a text that ends with the token `id` by the limit and is incomplete.
    fn check_complete(&mut self, id: u32) -> Result<()> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(());
        };
        constraint.accept(id)?;
        if self.options.at_limit == AtLimit::Stop || constraint.is_complete()? {
            return Ok(());
        }
        Err(Error::option(
            constraint.option(),
            format!("the text is incomplete after {} tokens", self.limit),
        ))
    }

    /// Ends with `error`, after the events before it.
    pub(super) fn fail(&mut self, error: Error) {
        self.events.push_back(Err(error));
        self.phase = Phase::Done;
        self.work = None;
    }

    fn finish(&mut self, reason: FinishReason) {
        self.phase = Phase::Done;
        self.work = None;
        self.events.push_back(Ok(Event::Finished {
            reason,
            stats: self.stats,
        }));
    }

    /// End of the prompt's chunk that begins at `processed`.
    fn end_of_chunk(&self, processed: usize) -> usize {
        self.prompt.min(processed.saturating_add(self.chunk))
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

    /// Counts a generated token.
    fn count_token(&mut self) -> Result<()> {
        self.stats.generated_tokens += 1;
        let elapsed = self.started.elapsed();
        if self.stats.generated_tokens == 1 {
            self.stats.prefill = elapsed;
        }
        self.stats.decode = elapsed.saturating_sub(self.stats.prefill);
        match &self.work {
            Some(work) => work.after_token(self.stats.generated_tokens),
            None => Ok(()),
        }
    }

    /// The reason if the text ends with the token `id`, the `last` one that the limit allows or
    /// not, unless a stop string ends it.
    fn reason_to_end(&self, id: u32, last: bool) -> Option<FinishReason> {
        if self.end_tokens.contains(&id) && !self.options.ignore_eos {
            Some(FinishReason::Eos)
        } else if !last {
            None
        } else if self.stats.generated_tokens < self.options.max_tokens {
            Some(FinishReason::Context)
        } else {
            Some(FinishReason::Length)
        }
    }

    /// Refuses logits with the `sum` that are not finite, or zeros because a norm overflowed. The
    /// cache, whose keys and values are not finite then, is dropped.
    fn check_finite(&mut self, model: &Model, sum: f32) -> Result<()> {
        if sum.is_finite() && (sum != 0.0 || self.zeros) {
            return Ok(());
        }
        let tokens = self.cache.tokens();
        let found = if tokens.contains(&UNKNOWN) {
            None
        } else {
            model.non_finite(tokens)?
        };
        if found.is_none() && sum.is_finite() {
            self.zeros = true;
            return Ok(());
        }
        self.cache = PromptCache::default();
        Err(found.unwrap_or_else(|| model.non_finite_logits()))
    }
}

/// The step that chooses a token from `logits`, f32 `[V]`, among those in `allowed`, bool `[V]`.
fn step(
    options: &GenerateOptions,
    sampler: &mut Sampler,
    logits: &Array,
    allowed: Option<&Array>,
) -> Result<Step> {
    Step::new(logits, allowed, sampler, options)
}

/// The constraint of `options` on the text after `prompt`, which `eos` ends.
fn constraint(
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: &GenerateOptions,
    eos: u32,
) -> Result<Option<Constraint>> {
    let Some(kind) = &options.constraint else {
        return Ok(None);
    };
    if options.ignore_eos {
        let problem = format!(
            "not with {}: the text ends where it is complete",
            kind.option()
        );
        return Err(Error::option("ignore_eos", problem));
    }
    let Some(tokenizer) = tokenizer else {
        return Err(Error::option(kind.option(), "a tokenizer is needed"));
    };
    Ok(Some(Constraint::new(tokenizer, kind, prompt, eos)?))
}

/// Largest number of positions of a sequence; `None` with a rotating cache.
pub(super) fn context(model: &Model, options: &GenerateOptions) -> Option<usize> {
    let context = model.config().max_context_length();
    options.kv_cache.max_kv_size.is_none().then_some(context)
}

/// Checks a prompt, which may begin with the tokens of `cache`, and options for `model`, of whose
/// ids those below `pieces` may be drawn.
fn check(
    prompt: &[u32],
    options: &GenerateOptions,
    cache: &PromptCache,
    model: &Model,
    pieces: usize,
) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::empty_prompt());
    }
    let vocab = model.config().vocab_size();
    let cached = cache.tokens().iter().map(Some);
    let mut ids = prompt.iter().zip(cached.chain(std::iter::repeat(None)));
    if let Some((id, _)) = ids.find(|&(id, cached)| *id as usize >= vocab && cached != Some(id)) {
        let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
        return Err(Error::option("prompt", problem));
    }
    options.kv_cache.check_for(model.config().head_dim())?;
    if let Some(context) = context(model, options)
        && prompt.len() >= context
    {
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
