//! Divergence of two models on the same text.

use std::path::PathBuf;

use mlx_rs::{
    Array,
    ops::{indexing::argmax_axis, logsumexp_axis},
};

use super::{
    documents::{Documents, no_text},
    encoded_request::{EncodedRequest, Part},
    perplexity::PerplexityOptions,
    score_rows::{block_rows, logits_of},
    scorer::pass_tokens,
    standard_error::standard_error,
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
        evaluation,
        recovery::recovering,
    },
    model::Model,
};

/// The divergence of a model from a reference, over the tokens of documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Divergence {
    /// Number of documents.
    pub documents: usize,
    /// Number of tokens whose distributions were compared.
    pub tokens: usize,
    /// Sum of the Kullback-Leibler divergences `KL(reference ‖ model)` of all tokens, in nats.
    pub kl: f64,
    /// Number of tokens at which both models have the same most likely token.
    pub same_top: usize,
    /// Divergence and number of tokens of each window.
    of_windows: Vec<(f64, usize)>,
}

impl Divergence {
    /// Mean divergence per token, in nats.
    pub fn kl_per_token(&self) -> f64 {
        self.kl / self.tokens as f64
    }

    /// Part of the tokens at which both models have the same most likely token, from 0 to 1.
    pub fn top1_agreement(&self) -> f64 {
        self.same_top as f64 / self.tokens as f64
    }

    /// Standard error of the mean divergence, over windows; `None` for a single one.
    pub fn standard_error(&self) -> Option<f64> {
        standard_error(&self.of_windows)
    }

    fn add(&mut self, window: Window) {
        self.tokens += window.tokens;
        self.kl += window.kl;
        self.same_top += window.same_top;
        self.of_windows.push((window.kl, window.tokens));
    }
}

/// Compares `model` with `reference` on the documents of `files`, in the windows of `options`, whose
/// tokens are the same for both. `each` receives the result so far after every document.
///
/// # Errors
/// [`Error::Option`] if the vocabularies differ in size, the tokenizers in a token, an option is out
/// of range, or no document has a token; [`Error::Cancelled`] before the next pass after
/// [`CancelHandle::cancel`]; the error of the first file or row that cannot be read;
/// [`Error::NonFinite`]; [`Error::Mlx`]; the errors of `each`.
pub fn divergence<E: From<Error>>(
    reference: &LanguageModel,
    model: &LanguageModel,
    files: &[PathBuf],
    options: &PerplexityOptions,
    cancel: &CancelHandle,
    mut each: impl FnMut(&Divergence) -> Result<(), E>,
) -> Result<Divergence, E> {
    check_vocabularies(reference, model)?;
    let work = DeviceWork::begin()?;
    work.enter(Phase::Prompt)?;
    let pass_tokens = pass_tokens(Device::current()?);
    let tokenizer = reference.tokenizer().literal();
    let mut pair = Pair::new(reference.model(), model.model());
    let mut found = Divergence::default();
    for text in Documents::open(files, &options.text_key)? {
        let mut ids = vec![tokenizer.bos_id()];
        ids.extend(tokenizer.encode(&text?)?);
        if options.add_eos {
            ids.push(tokenizer.eos_id());
        }
        if ids.len() == 1 {
            continue;
        }
        // The windows fit the contexts of both models.
        EncodedRequest::in_windows(model, &ids, &options.windows)?;
        let windows = EncodedRequest::in_windows(reference, &ids, &options.windows)?;
        for part in &windows.parts {
            let window = recovering(|| pair.compare(part, pass_tokens, cancel))?;
            found.add(window);
        }
        found.documents += 1;
        each(&found)?;
    }
    if found.tokens == 0 {
        return Err(no_text(files).into());
    }
    Ok(found)
}

/// Refuses models whose ids stand for other tokens.
///
/// # Errors
/// [`Error::Option`] if the vocabularies differ in size, or the tokenizers in a token.
pub fn check_vocabularies(reference: &LanguageModel, model: &LanguageModel) -> Result<()> {
    let refused = |problem: String| Err(Error::option("against", problem));
    let [ours, theirs] = [reference, model].map(|model| model.model().config().vocab_size());
    if ours != theirs {
        return refused(format!(
            "expected the vocabulary of {ours} ids of the other model, found {theirs}"
        ));
    }
    let [ours, theirs] = [reference, model].map(LanguageModel::tokenizer);
    let ids = ours.vocab_size().max(theirs.vocab_size()) as u32;
    let differs = (0..ids).find(|&id| ours.piece(id) != theirs.piece(id));
    match differs {
        Some(id) => {
            let piece = |piece: Option<&str>| piece.map_or("no token".into(), |p| format!("{p:?}"));
            refused(format!(
                "{}: the tokenizer is not that of {}: expected {} as the token {id}, found {}",
                theirs.path().display(),
                ours.path().display(),
                piece(ours.piece(id)),
                piece(theirs.piece(id)),
            ))
        }
        None => Ok(()),
    }
}

/// The difference of logits from those of a reference, for each row. Not evaluated.
pub(crate) struct LogitDifference {
    /// `KL(reference ‖ model)` in nats, f32 `[R]`.
    pub(crate) kl: Array,
    /// Both have the same most likely token, bool `[R]`.
    pub(crate) same_top: Array,
}

/// Compares the logits `q` of a model with those of a reference `p`, both f32 `[R, V]`.
pub(crate) fn compare_logits(p: &Array, q: &Array) -> Result<LogitDifference> {
    let log = |logits: &Array| logits.subtract(logsumexp_axis(logits, -1, true)?);
    let (p_log, q_log) = (log(p)?, log(q)?);
    let kl = p_log.exp()?.multiply(p_log.subtract(&q_log)?)?;
    Ok(LogitDifference {
        kl: kl.sum_axis(-1, false)?,
        same_top: argmax_axis(p, -1, false)?.eq(argmax_axis(q, -1, false)?)?,
    })
}

/// The divergence in one window.
#[derive(Debug, Default)]
struct Window {
    tokens: usize,
    kl: f64,
    same_top: usize,
}

/// Two models with the keys and values of the same tokens.
struct Pair<'m> {
    models: [&'m Model; 2],
    trunks: [Trunk; 2],
}

impl<'m> Pair<'m> {
    fn new(reference: &'m Model, model: &'m Model) -> Self {
        let models = [reference, model];
        Self {
            trunks: models.map(Trunk::new),
            models,
        }
    }

    /// Compares the distributions of the scored tokens of a window, in passes of `pass_tokens`.
    fn compare(
        &mut self,
        part: &Part,
        pass_tokens: usize,
        cancel: &CancelHandle,
    ) -> Result<Window> {
        let tokens: Vec<u32> = part.read().collect();
        let first_row = part.context.len() - 1;
        let mut window = Window::default();
        self.trunks.iter_mut().for_each(|trunk| trunk.truncate(0));
        let mut start = 0;
        for chunk in tokens.chunks(pass_tokens) {
            cancel.check()?;
            pause_point(cancel, || Ok(()))?;
            let [reference, model] = &mut self.trunks;
            let hidden = [
                reference.extend(self.models[0], chunk)?,
                model.extend(self.models[1], chunk)?,
            ];
            let rows: Vec<usize> = (first_row.saturating_sub(start)..chunk.len()).collect();
            for rows in rows.chunks(block_rows(self.models[0])) {
                if !self.compare_rows(&hidden, rows, &mut window)? {
                    return Err(self.non_finite(&tokens)?);
                }
            }
            self.trunks.iter().try_for_each(Trunk::eval)?;
            start += chunk.len();
        }
        Ok(window)
    }

    /// Compares rows of the hidden states of both models; false if a value is not finite.
    fn compare_rows(
        &self,
        hidden: &[Array; 2],
        rows: &[usize],
        window: &mut Window,
    ) -> Result<bool> {
        let logits = [
            logits_of(self.models[0], &hidden[0], rows)?,
            logits_of(self.models[1], &hidden[1], rows)?,
        ];
        let [p, q] = &logits;
        let LogitDifference { kl, same_top } = compare_logits(p, q)?;
        evaluation::complete([&kl, &same_top])?;
        let kl = kl.to_vec_exact::<f32>()?;
        if kl.iter().any(|kl| !kl.is_finite()) {
            return Ok(false);
        }
        let same = same_top.to_vec_exact::<bool>()?;
        window.tokens += rows.len();
        window.kl += kl.iter().map(|&kl| f64::from(kl)).sum::<f64>();
        window.same_top += same.iter().filter(|same| **same).count();
        Ok(true)
    }

    fn non_finite(&self, tokens: &[u32]) -> Result<Error> {
        for model in self.models {
            if let Some(error) = model.non_finite(tokens)? {
                return Ok(error);
            }
        }
        Ok(self.models[1].non_finite_logits())
    }
}
