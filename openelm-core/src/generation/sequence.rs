//! The state of one sequence, without its model.
//!
//! A turn has three parts: the sequence gives the tokens of its next pass through the network
//! ([`next_pass`](Sequence::next_pass)), receives the logits ([`passed`](Sequence::passed)), and
//! reads the step before ([`read`](Sequence::read)). The prompt is passed in chunks. Then each
//! step's graph is built and started before the token of the previous step is read, so the device
//! does not wait for the host. With drafts, a pass needs the last token on the host, and the turn
//! reads its own round.

mod rounds;

use std::collections::VecDeque;

use mlx_rs::Array;

use super::{
    chooser::Chooser,
    eos_token::end_tokens,
    event::{Event, FinishReason, PromptToken, Stats, Token},
    generated_text::GeneratedText,
    options::GenerateOptions,
    phase::{Next, Pass, Phase},
    progress::Progress,
    prompt_cache::{PromptCache, UNKNOWN},
    prompt_logprobs::prompt_logprobs,
    speculation::Speculation,
    step::{PendingLogits, StepValues},
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    mlx::{cache_policy, evaluation},
    model::{KvCache, Model},
    tokenizer::Tokenizer,
};

/// A sequence without its model, which is an argument of every call and must not change.
#[derive(Debug)]
pub(super) struct Sequence {
    options: GenerateOptions,
    /// Length of the prompt, the first tokens of `cache`.
    prompt: usize,
    chunk: usize,
    /// Limit of the ids that may be drawn, exclusive.
    pieces: usize,
    cache: PromptCache,
    chooser: Chooser,
    text: GeneratedText,
    speculation: Option<Speculation>,
    cancel: CancelHandle,
    /// Logits of zeros were examined: they are the model's, and not of a norm that overflowed.
    zeros: bool,
    phase: Phase,
    /// Events and the last error that were not taken yet.
    events: VecDeque<Result<Event>>,
    /// Dropped after the steps in `phase`.
    progress: Progress,
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
        options.check(&prompt, &cache, config, pieces)?;
        let chunk = options.chunk()?;
        let eos = config.eos_token_id() as u32;
        let end_tokens = end_tokens(eos, &options.extra_eos_tokens, tokenizer, vocab)?;
        let unknown = prompt.iter().rposition(|&id| id == UNKNOWN);
        let known = prompt.get(unknown.map_or(0, |last| last + 1)..);
        let known = known.unwrap_or_default();
        let chooser = Chooser::new(&options, tokenizer, known, pieces, &end_tokens)?;
        let text = GeneratedText::new(tokenizer, known, &options.stop);
        let length = prompt.len();
        let positions = match options.context(config) {
            Some(context) => context - length,
            None => usize::MAX,
        };
        let cache = if options.prompt_logprobs {
            PromptCache::default()
        } else {
            cache
        };
        let cache = cache.continue_with(model, prompt, &options.kv_cache)?;
        let processed = cache.offset();
        let stats = Stats {
            prompt_tokens: length,
            cached_tokens: processed,
            seed: chooser.seed(),
            ..Stats::default()
        };
        let mut sequence = Self {
            chunk,
            pieces,
            cache,
            chooser,
            text,
            speculation: None,
            cancel: CancelHandle::default(),
            zeros: false,
            phase: Phase::Prefill { processed },
            events: VecDeque::new(),
            progress: Progress::new(stats, &options, positions, end_tokens),
            prompt: length,
            options,
        };
        match sequence.options.prompt_lookup {
            0 => {}
            most => sequence.speculate(Speculation::prompt_lookup(most)?, "prompt_lookup")?,
        }
        Ok(sequence)
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_str()
    }

    pub(super) fn into_cache(mut self) -> PromptCache {
        // A round that failed leaves positions of its drafts.
        self.cache.truncate(self.cache.tokens().len());
        self.cache
    }

    pub(super) fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Waits for the steps in progress.
    pub(super) fn settle(&self) -> Result<()> {
        self.phase.settle()
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
    pub(super) fn next_pass(&mut self, model: &Model) -> Result<Option<Pass>> {
        if self.cancel.is_cancelled() {
            self.finish(FinishReason::Cancelled);
        }
        if self.expects_drafts() {
            self.read_step(model)?;
        }
        match &self.phase {
            Phase::Prefill { processed } => {
                let processed = *processed;
                if processed == self.progress.stats.cached_tokens {
                    self.progress.start();
                }
                self.progress.work_in(cache_policy::Phase::Prompt)?;
                let end = self.end_of_chunk(processed);
                let chunk = &self.cache.tokens()[processed..end];
                let logits = if self.options.prompt_logprobs {
                    chunk.len()
                } else {
                    usize::from(end == self.prompt && self.progress.limit() > 0)
                };
                let tokens = Array::from_slice(chunk, &[1, chunk.len() as i32]);
                Ok(Some(Pass { tokens, logits }))
            }
            Phase::Decode { step, .. } => {
                let tokens = step.token().reshape(&[1, 1])?;
                self.progress.work_in(cache_policy::Phase::Decode)?;
                let last = self.is_last_step();
                Ok((!last).then_some(Pass { tokens, logits: 1 }))
            }
            Phase::Read { .. } => {
                self.progress.work_in(cache_policy::Phase::Decode)?;
                let drafts = self.drafts()?;
                let tokens = [&[self.last_token()], &*drafts].concat();
                self.phase = Phase::Read { drafts };
                Ok(Some(Pass {
                    tokens: Array::from_slice(&tokens, &[1, tokens.len() as i32]),
                    logits: tokens.len(),
                }))
            }
            Phase::Verify(_) => Ok(None),
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

    /// Takes the result of the pass: `logits`, f32 `[V]` for each row that was needed. Nothing is
    /// evaluated; [`started`](Self::started) has what must be.
    pub(super) fn passed(&mut self, model: &Model, logits: &[Array]) -> Result<()> {
        let processed = match (&mut self.phase, logits) {
            (Phase::Decode { next, .. }, [logits]) => {
                *next = Some(if self.chooser.reads_history() {
                    Next::Logits(PendingLogits::new(logits))
                } else {
                    Next::Step(self.chooser.step(&self.options, logits, usize::MAX)?)
                });
                return Ok(());
            }
            (Phase::Read { drafts }, logits) => {
                let drafts = std::mem::take(drafts);
                return self.passed_drafts(drafts, logits);
            }
            (Phase::Prefill { processed }, _) => *processed,
            _ => return Ok(()),
        };
        let start = processed;
        let processed = self.end_of_chunk(start);
        let logprobs = self.prompt_logprobs(model, start, logits)?;
        self.events.push_back(Ok(Event::Prefill {
            processed,
            total: self.prompt,
            logprobs,
        }));
        let is_last = processed == self.prompt && self.progress.limit() > 0;
        match logits.last().filter(|_| is_last) {
            Some(logits) => {
                let step = self
                    .chooser
                    .step(&self.options, logits, self.progress.left())?;
                self.phase = Phase::Decode { step, next: None };
            }
            None if processed < self.prompt => self.phase = Phase::Prefill { processed },
            None => {
                self.chooser.check_complete(None, 0)?;
                self.finish(FinishReason::Length);
            }
        }
        Ok(())
    }

    /// The log-probabilities of the prompt's tokens after `start`, of the chunk that begins there
    /// and has `logits`; empty if they are not requested.
    fn prompt_logprobs(
        &self,
        model: &Model,
        start: usize,
        logits: &[Array],
    ) -> Result<Vec<PromptToken>> {
        if !self.options.prompt_logprobs {
            return Ok(Vec::new());
        }
        let tokens = self.cache.tokens();
        let end = self.prompt.min(start + 1 + logits.len());
        let following = tokens.get(start + 1..end).unwrap_or_default();
        match prompt_logprobs(following, logits, self.options.logprobs)? {
            Some(logprobs) => Ok(logprobs),
            None => Err(match model.non_finite(tokens)? {
                Some(error) => error,
                None => model.non_finite_logits(),
            }),
        }
    }

    /// The arrays whose evaluation must be started after [`passed`](Self::passed).
    pub(super) fn started(&self) -> Vec<&Array> {
        match &self.phase {
            // Evaluating the hidden states would also run the last FFN, which is not needed.
            Phase::Prefill { .. } => self.cache.arrays().collect(),
            phase => phase.arrays(),
        }
    }

    /// Ends the turn: waits for a chunk of the prompt, so that no more than one is in progress; or
    /// reads the step before the last pass, or the round of drafts.
    pub(super) fn read(&mut self, model: &Model) -> Result<()> {
        match &self.phase {
            Phase::Prefill { processed } => {
                self.cache.eval()?;
                match &mut self.speculation {
                    Some(drafts) => drafts.read_prompt(&self.cache.tokens()[..*processed]),
                    None => Ok(()),
                }
            }
            // The step was begun in this turn.
            Phase::Decode { next: None, .. } if !self.is_last_step() => Ok(()),
            Phase::Decode { .. } => self.read_step(model),
            Phase::Verify(_) => self.read_round(model),
            Phase::Read { .. } | Phase::Done => Ok(()),
        }
    }

    /// Reads the step in progress.
    fn read_step(&mut self, model: &Model) -> Result<()> {
        let Phase::Decode { step, next } = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        if let Some(speculation) = &mut self.speculation {
            speculation.single();
        }
        let reason = self.take_token(model, step.read()?)?;
        self.phase = match (reason, next) {
            (Some(reason), _) => return self.end(reason),
            (None, Some(Next::Step(step))) => Phase::Decode { step, next: None },
            (None, Some(Next::Logits(logits))) => {
                // The device computes the logits meanwhile.
                self.chooser.accept(self.last_token())?;
                let left = self.progress.left();
                let step = self.chooser.step(&self.options, logits.as_array(), left)?;
                evaluation::start(step.arrays())?;
                Phase::Decode { step, next: None }
            }
            (None, None) => Phase::Read { drafts: Vec::new() },
        };
        Ok(())
    }

    /// Takes a chosen token. Returns the reason if the text ends with it.
    fn take_token(&mut self, model: &Model, values: StepValues) -> Result<Option<FinishReason>> {
        self.check_finite(model, values.sum)?;
        if values.nothing_allowed {
            return Err(self.chooser.nothing_allowed());
        }
        let id = values.id;
        self.cache.push(id);
        self.progress.count_token()?;
        let end = self.progress.reason_to_end(id);
        let (text, reason) = self.text.push(id, end)?;
        let token = Token {
            id,
            text,
            logprob: values.logprob,
            top_logprobs: values.top_logprobs,
        };
        self.events.push_back(Ok(Event::Token(token)));
        Ok(reason)
    }

    /// Ends with `error`, after the events before it.
    pub(super) fn fail(&mut self, error: Error) {
        self.events.push_back(Err(error));
        self.phase = Phase::Done;
        self.progress.end_work();
    }

    /// Ends with the last token that was read.
    fn end(&mut self, reason: FinishReason) -> Result<()> {
        if matches!(reason, FinishReason::Length | FinishReason::Context) {
            self.chooser
                .check_complete(Some(self.last_token()), self.progress.limit())?;
        }
        self.finish(reason);
        Ok(())
    }

    fn finish(&mut self, reason: FinishReason) {
        self.phase = Phase::Done;
        self.progress.end_work();
        self.events.push_back(Ok(Event::Finished {
            reason,
            stats: self.progress.stats,
        }));
    }

    /// True if the limit allows no token after the step in progress.
    fn is_last_step(&self) -> bool {
        self.progress.left() <= 1
    }

    fn last_token(&self) -> u32 {
        self.cache.tokens().last().copied().unwrap_or_default()
    }

    /// End of the prompt's chunk that begins at `processed`.
    fn end_of_chunk(&self, processed: usize) -> usize {
        self.prompt.min(processed.saturating_add(self.chunk))
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
