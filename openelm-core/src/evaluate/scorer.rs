//! Scores of many requests in few passes through the network.
//!
//! Sequences with common prefixes are one tree, which one pass reads: contexts are read once for
//! all their continuations. A prefix of sequences that do not fit into one pass stays as a
//! [`Trunk`], as the examples of few-shot questions do.

use std::{
    collections::{HashMap, VecDeque},
    iter,
};

use super::{
    encoded_request::{EncodedRequest, Part},
    log_likelihood::{LogLikelihood, ScoreRequest},
    score_rows::{TokenScore, block_rows, score_rows},
    trunk::Trunk,
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    gate::pause_point,
    generation::LanguageModel,
    mlx::{
        Device,
        cache_policy::{DeviceWork, Phase},
        recovery::recovering,
    },
    model::{Model, TokenTree},
};

/// Tokens of a common prefix that are worth a pass of their own.
const SMALLEST_PREFIX: usize = 32;

/// Scores requests with a model and its active adapters.
///
/// The requests of one call share the passes through the network; results come in the order of their
/// last pass, which is the order of the requests except for contexts that occur again later.
#[derive(Debug)]
pub struct Scorer<'m> {
    language_model: &'m LanguageModel,
    cancel: CancelHandle,
    trunk: Trunk,
    /// Largest number of tokens of a pass.
    pass_tokens: usize,
}

impl<'m> Scorer<'m> {
    /// A scorer for `model`.
    ///
    /// # Errors
    /// [`Error::Mlx`] if MLX fails.
    pub fn new(model: &'m LanguageModel) -> Result<Self> {
        Ok(Self {
            language_model: model,
            cancel: CancelHandle::default(),
            trunk: Trunk::new(model.model()),
            pass_tokens: pass_tokens(Device::current()?),
        })
    }

    /// The model.
    pub fn model(&self) -> &'m LanguageModel {
        self.language_model
    }

    /// A handle that cancels the scoring from any thread, before the next pass.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Scores continuations, as [`EncodedRequest::of_continuation`] encodes them; `each` receives
    /// every result with the index of its request.
    ///
    /// # Errors
    /// The error of the first request that cannot be encoded, with its index, before any is scored;
    /// those of [`score`](Self::score).
    pub fn log_likelihoods<E: From<Error>>(
        &mut self,
        requests: &[ScoreRequest],
        each: impl FnMut(usize, LogLikelihood) -> Result<(), E>,
    ) -> Result<(), E> {
        let encoded = self.encode(requests, 0)?;
        self.score(&encoded, each)
    }

    /// The tokens of `requests`; the first one has the index `first` in an error.
    pub(crate) fn encode(
        &self,
        requests: &[ScoreRequest],
        first: usize,
    ) -> Result<Vec<EncodedRequest>> {
        let encoded = iter::zip(first.., requests).map(|(index, request)| {
            let encoded = EncodedRequest::of_continuation(self.language_model, request);
            encoded.map_err(|error| match error {
                Error::Option { option, problem } => {
                    Error::option("requests", format!("{index}: {option}: {problem}"))
                }
                other => other,
            })
        });
        encoded.collect()
    }

    /// Scores `requests`; `each` receives every result with the index of its request, as soon as it
    /// is complete. An error of `each` ends the scoring.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::NonFinite`] if the network computes NaN or infinity;
    /// [`Error::Mlx`] if MLX fails; the errors of `each`.
    pub fn score<E: From<Error>>(
        &mut self,
        requests: &[EncodedRequest],
        mut each: impl FnMut(usize, LogLikelihood) -> Result<(), E>,
    ) -> Result<(), E> {
        let work = DeviceWork::begin()?;
        work.enter(Phase::Prompt)?;
        // The adapters may have changed.
        self.trunk.truncate(0);
        let mut queue = by_context(requests);
        let mut results: Vec<Progress<'_>> = requests.iter().map(Progress::new).collect();
        while !queue.is_empty() {
            self.cancel.check()?;
            pause_point(&self.cancel, || Ok(()))?;
            let complete = recovering(|| self.pass(&mut queue))?;
            for sequence in complete {
                let result = &mut results[sequence.request];
                result.add(&sequence);
                if result.is_complete() {
                    each(sequence.request, result.take())?;
                }
            }
        }
        Ok(())
    }

    /// Makes a pass for the first sequences of the queue, and removes and returns those that are
    /// complete.
    fn pass<'r>(&mut self, queue: &mut VecDeque<Sequence<'r>>) -> Result<Vec<Sequence<'r>>> {
        let model = self.language_model.model();
        let Some(first) = queue.front() else {
            return Ok(Vec::new());
        };
        let reusable = self.trunk.shared(first.part.read()).min(first.reusable());
        self.trunk.truncate(reusable);
        let (pack, next) = self.pack(queue);
        if pack.paths.is_empty() {
            self.extend(model, queue, self.trunk.len() + self.pass_tokens)?;
            return Ok(Vec::new());
        }
        if let Some(next) = next {
            let together = queue.iter().take(pack.paths.len()).chain(queue.get(next));
            let common = common_prefix(together);
            if common >= self.trunk.len() + SMALLEST_PREFIX {
                self.extend(model, queue, common)?;
                return Ok(Vec::new());
            }
        }
        let mut complete: Vec<_> = queue.drain(..pack.paths.len()).collect();
        let trunk = self.trunk.len();
        let rows = iter::zip(&complete, &pack.paths).flat_map(|(sequence, path)| {
            let nodes = path.iter().skip(sequence.next_row() - trunk);
            iter::zip(nodes.copied(), sequence.unscored().iter().copied())
        });
        let rows: Vec<_> = rows.collect();
        let scores = self.trunk.branch(model, &pack.tree, |hidden| {
            score_rows(model, hidden, &rows, block_rows(model))
        })?;
        let Some(scores) = scores else {
            return Err(non_finite(model, &complete)?);
        };
        let mut scores = scores.into_iter();
        for sequence in &mut complete {
            let own = scores.by_ref().take(sequence.unscored().len());
            sequence.scores.extend(own);
        }
        Ok(complete)
    }

    /// The first sequences of the queue that fit into a pass, and the index of the next one if it
    /// continues the trunk and does not fit. Sequences with one context are not separated, unless
    /// they are the first.
    fn pack(&self, queue: &VecDeque<Sequence<'_>>) -> (Pack, Option<usize>) {
        let trunk = self.trunk.len();
        let mut pack = Pack::default();
        // Number of sequences and nodes before the last context.
        let mut before = (0, 0);
        for (index, sequence) in queue.iter().enumerate() {
            let shares =
                trunk <= sequence.reusable() && self.trunk.shared(sequence.part.read()) == trunk;
            if !shares {
                return (pack, None);
            }
            let previous = index.checked_sub(1).and_then(|index| queue.get(index));
            if previous.is_some_and(|other| other.part.context != sequence.part.context) {
                before = (pack.paths.len(), pack.tree.len());
            }
            let nodes = pack.tree.len();
            let tokens: Vec<u32> = sequence.part.read().skip(trunk).collect();
            // More than a pass, whatever the tree has of it.
            let is_long = tokens.len() > self.pass_tokens;
            if !is_long {
                let path = pack.tree.insert(&tokens);
                pack.paths.push(path);
            }
            if is_long || pack.tree.len() > self.pass_tokens {
                let (paths, nodes) = if before.0 > 0 { before } else { (index, nodes) };
                pack.paths.truncate(paths);
                pack.tree.truncate(nodes);
                return (pack, Some(paths));
            }
        }
        (pack, None)
    }

    /// Adds the tokens of the first sequence to the trunk, up to `end`, and scores them.
    fn extend(
        &mut self,
        model: &Model,
        queue: &mut VecDeque<Sequence<'_>>,
        end: usize,
    ) -> Result<()> {
        let Some(first) = queue.front_mut() else {
            return Ok(());
        };
        let start = self.trunk.len();
        let tokens: Vec<u32> = first.part.read().take(end).skip(start).collect();
        let hidden = self.trunk.extend(model, &tokens)?;
        let row = first.next_row() - start;
        let targets = first.unscored().iter().copied();
        let rows: Vec<_> = (row..tokens.len()).zip(targets).collect();
        if rows.is_empty() {
            return self.trunk.eval();
        }
        match score_rows(model, &hidden, &rows, block_rows(model))? {
            Some(scores) => first.scores.extend(scores),
            None => return Err(non_finite(model, [&*first])?),
        }
        self.trunk.eval()
    }
}

/// Largest number of tokens of a pass.
pub(super) fn pass_tokens(device: Device) -> usize {
    match device {
        Device::Gpu if !cfg!(target_os = "ios") => 512,
        _ => 256,
    }
}

/// Sequences of a pass, the first ones of the queue.
#[derive(Debug, Default)]
struct Pack {
    /// The tokens after the trunk.
    tree: TokenTree,
    /// The nodes of each sequence.
    paths: Vec<Vec<usize>>,
}

/// A part of a request with the scores of its first tokens.
#[derive(Debug)]
struct Sequence<'r> {
    request: usize,
    /// Number of the part in its request.
    place: usize,
    part: &'r Part,
    scores: Vec<TokenScore>,
}

impl Sequence<'_> {
    /// The row of the first token without a score: the place of the token before it.
    fn next_row(&self) -> usize {
        self.part.context.len() - 1 + self.scores.len()
    }

    /// Number of tokens whose rows are not needed.
    fn reusable(&self) -> usize {
        self.next_row()
    }

    /// The tokens without a score.
    fn unscored(&self) -> &[u32] {
        self.part
            .continuation
            .get(self.scores.len()..)
            .unwrap_or_default()
    }
}

/// The sequences of all requests, in order, but a context that occurs again directly after its first
/// occurrence.
fn by_context(requests: &[EncodedRequest]) -> VecDeque<Sequence<'_>> {
    let mut groups: Vec<Vec<Sequence<'_>>> = Vec::new();
    let mut of_context: HashMap<&[u32], usize> = HashMap::new();
    for (request, encoded) in requests.iter().enumerate() {
        for (place, part) in encoded.parts.iter().enumerate() {
            // The windows of a text stay together.
            let group = match &*encoded.parts {
                [_] => *of_context.entry(&part.context).or_insert(groups.len()),
                _ => groups.len(),
            };
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(Sequence {
                request,
                place,
                part,
                scores: Vec::new(),
            });
        }
    }
    groups.into_iter().flatten().collect()
}

/// Length of the common prefix of sequences, without the tokens whose rows are needed.
fn common_prefix<'r>(sequences: impl IntoIterator<Item = &'r Sequence<'r>>) -> usize {
    let mut sequences = sequences.into_iter();
    let Some(first) = sequences.next() else {
        return 0;
    };
    let shared = sequences.map(|other| {
        let pairs = iter::zip(first.part.read(), other.part.read());
        let shared = pairs.take_while(|(a, b)| a == b).count();
        shared.min(other.reusable())
    });
    shared.min().unwrap_or(usize::MAX).min(first.reusable())
}

/// The error of sequences with a score that is not finite.
fn non_finite<'r>(
    model: &Model,
    sequences: impl IntoIterator<Item = &'r Sequence<'r>>,
) -> Result<Error> {
    for sequence in sequences {
        let tokens: Vec<u32> = sequence.part.read().collect();
        if let Some(error) = model.non_finite(&tokens)? {
            return Ok(error);
        }
    }
    Ok(model.non_finite_logits())
}

/// The scores of the parts of a request.
#[derive(Debug)]
struct Progress<'r> {
    request: &'r EncodedRequest,
    scores: Vec<Vec<TokenScore>>,
    missing: usize,
}

impl<'r> Progress<'r> {
    fn new(request: &'r EncodedRequest) -> Self {
        let missing = request.parts.len();
        Self {
            request,
            scores: vec![Vec::new(); missing],
            missing,
        }
    }

    fn add(&mut self, sequence: &Sequence<'_>) {
        self.scores[sequence.place].clone_from(&sequence.scores);
        self.missing -= 1;
    }

    fn is_complete(&self) -> bool {
        self.missing == 0
    }

    fn take(&mut self) -> LogLikelihood {
        let scores: Vec<TokenScore> = std::mem::take(&mut self.scores).concat();
        let parts = self.request.parts.iter();
        LogLikelihood {
            sum: scores.iter().map(|score| f64::from(score.logprob)).sum(),
            is_greedy: scores.iter().all(|score| score.is_greedy),
            tokens: parts.flat_map(|part| part.continuation.clone()).collect(),
            token_logprobs: scores.iter().map(|score| score.logprob).collect(),
            truncated: self.request.truncated,
        }
    }
}
