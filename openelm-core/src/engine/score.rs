//! Log-likelihoods on the engine's thread, a few requests at a time, between which the requests of
//! others advance.

use super::model::ModelHandle;
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    evaluate::{LogLikelihood, Perplexity, PerplexityOptions, ScoreRequest, Scorer},
};

/// Requests of a unit of work, and more if they have the context of the last one.
const UNIT: usize = 8;
/// Largest number of requests of a unit.
const LARGEST_UNIT: usize = 64;

impl ModelHandle {
    /// The log-likelihoods of continuations after their contexts, in order, with the active adapters.
    /// Requests with one context share its pass, up to 64 of them, if they follow each other.
    /// Cancelling, or dropping the future, ends the work before its next unit.
    ///
    /// # Errors
    /// [`Error::Option`] with the index of the first request that cannot be
    /// encoded, once those of the units before it are scored; as [`Scorer::score`];
    /// [`Error::Unloaded`], [`Error::Cancelled`].
    pub async fn log_likelihoods(
        &self,
        requests: Vec<ScoreRequest>,
        cancel: &CancelHandle,
    ) -> Result<Vec<LogLikelihood>> {
        self.check_loaded()?;
        let mut results = Vec::with_capacity(requests.len());
        let mut left = requests.as_slice();
        while !left.is_empty() {
            cancel.check()?;
            let (unit, rest) = left.split_at(unit(left));
            left = rest;
            let (id, first, unit) = (self.id(), results.len(), unit.to_vec());
            let scored = self.engine().call(move |state| {
                let mut scorer = Scorer::new(state.model(id)?)?;
                let encoded = scorer.encode(&unit, first)?;
                let mut scored = vec![None; unit.len()];
                scorer.score(&encoded, |index, result| -> Result<()> {
                    if let Some(slot) = scored.get_mut(index) {
                        *slot = Some(result);
                    }
                    Ok(())
                })?;
                Ok(scored)
            });
            results.extend(scored.await?.into_iter().flatten());
        }
        Ok(results)
    }
}

impl ModelHandle {
    /// The perplexity of `texts`, over all their tokens, as
    /// [`perplexity`](crate::evaluate::perplexity) scores documents, with the active adapters. A
    /// text without tokens is skipped. Cancelling, or dropping the future, ends the work before its
    /// next unit, a few texts.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range or no text has a token; as [`Scorer::score`];
    /// [`Error::Unloaded`], [`Error::Cancelled`].
    pub async fn perplexity(
        &self,
        texts: Vec<String>,
        options: PerplexityOptions,
        cancel: &CancelHandle,
    ) -> Result<Perplexity> {
        self.check_loaded()?;
        let (mut texts, mut found) = (texts.into_iter(), Perplexity::default());
        loop {
            cancel.check()?;
            let (id, options) = (self.id(), options.clone());
            let scored = self.engine().call(move |state| {
                let mut scorer = Scorer::new(state.model(id)?)?;
                let mut next = texts.by_ref().map(Ok);
                let continues = found.score_some::<Error>(&mut scorer, &mut next, &options)?;
                Ok((continues, texts, found))
            });
            let continues;
            (continues, texts, found) = scored.await?;
            if !continues {
                break;
            }
        }
        if found.tokens == 0 {
            return Err(Error::option(
                "texts",
                "expected a text with tokens, found none",
            ));
        }
        Ok(found)
    }
}

/// Number of requests of the next unit.
fn unit(requests: &[ScoreRequest]) -> usize {
    let end = UNIT.min(requests.len());
    let last = requests.get(end - 1);
    let same = requests.iter().take(LARGEST_UNIT).skip(end);
    end + same
        .take_while(|next| last.is_some_and(|last| last.context == next.context))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_not_divided() {
        let request = |context: &str| ScoreRequest {
            context: context.into(),
            continuation: "x".into(),
        };
        let mut requests: Vec<_> = ["a"; 7].map(request).to_vec();
        assert_eq!(unit(&requests), 7);
        requests.extend(["b"; 4].map(request));
        assert_eq!(unit(&requests), 11);
        requests.push(request("c"));
        assert_eq!(unit(&requests), 11);
        assert_eq!(unit(&requests[11..]), 1);
    }

    #[test]
    fn a_unit_of_one_context_is_limited() {
        let request = ScoreRequest {
            context: "".into(),
            continuation: "x".into(),
        };
        assert_eq!(unit(&vec![request; 1000]), LARGEST_UNIT);
    }
}
