//! Filters of the tokens before a draw: each keeps some of them.

use mlx_rs::{
    Array,
    ops::{self, indexing},
};

use super::{options::Sampling, xtc::Xtc};
use crate::error::Result;

/// Tokens for a draw.
#[derive(Debug)]
pub(super) struct Candidates {
    /// f32 `[N]`, negative infinity for excluded tokens.
    pub(super) logits: Array,
    /// Ids, u32 `[N]`; `None` if they are the positions.
    pub(super) ids: Option<Array>,
}

/// The tokens of `logits`, f32 `[V]`, that all filters keep. `xtc` comes with the random key of
/// this step.
pub(super) fn filter(
    logits: &Array,
    sampling: &Sampling,
    xtc: Option<(&Xtc, Array)>,
) -> Result<Candidates> {
    let logits = keep_sigmas(logits, sampling.top_n_sigma)?;
    let vocab = logits.dim(0) as usize;
    let limit = match sampling.top_k {
        0 => vocab,
        top_k => top_k.min(vocab),
    };
    let ids = if limit < vocab || sampling.top_p < 1.0 {
        Some(likeliest(&logits, limit)?)
    } else {
        None
    };
    let mut logits = match &ids {
        Some(ids) => logits.take(ids)?,
        None => logits,
    };
    logits = keep_typical(&logits, sampling.typical_p)?;
    if sampling.top_p < 1.0 {
        logits = keep_sum(&logits, sampling.top_p)?;
    }
    logits = keep_likely(&logits, sampling.min_p)?;
    if let Some((xtc, key)) = xtc {
        logits = xtc.apply(&logits, ids.as_ref(), &key)?;
    }
    Ok(Candidates { logits, ids })
}

/// Replaces the logits that are not kept by negative infinity.
pub(super) fn mask(logits: &Array, keep: &Array) -> Result<Array> {
    Ok(ops::select(
        keep,
        logits,
        Array::from_f32(f32::NEG_INFINITY),
    )?)
}

/// The ids of the `limit` largest logits in descending order, so that top-p keeps a prefix.
fn likeliest(logits: &Array, limit: usize) -> Result<Array> {
    let falling = logits.negative()?;
    if limit == logits.dim(0) as usize {
        return Ok(ops::argsort_axis(&falling, 0)?);
    }
    let likeliest = first(
        &ops::argpartition_axis(&falling, limit as i32 - 1, 0)?,
        limit,
    )?;
    let ranks = ops::argsort_axis(falling.take(&likeliest)?, 0)?;
    Ok(likeliest.take(ranks)?)
}

/// Keeps logits at most `sigmas` standard deviations below the largest; excluded tokens are not
/// part of the deviation.
fn keep_sigmas(logits: &Array, sigmas: f32) -> Result<Array> {
    if sigmas <= 0.0 {
        return Ok(logits.clone());
    }
    let zero = Array::from_f32(0.0);
    let present = logits.gt(Array::from_f32(f32::NEG_INFINITY))?;
    let count = present.sum(None)?;
    let mean = ops::select(&present, logits, &zero)?
        .sum(None)?
        .divide(&count)?;
    let squares = logits.subtract(mean)?.square()?;
    let variance = ops::select(&present, squares, &zero)?
        .sum(None)?
        .divide(&count)?;
    let reach = variance.sqrt()?.multiply(Array::from_f32(sigmas))?;
    let floor = logits.max_axis(0, true)?.subtract(reach)?;
    mask(logits, &logits.ge(floor)?)
}

/// Keeps the tokens whose information content is closest to the entropy, up to a total probability
/// of `typical_p`.
fn keep_typical(logits: &Array, typical_p: f32) -> Result<Array> {
    if typical_p >= 1.0 {
        return Ok(logits.clone());
    }
    let logprobs = logits.subtract(logits.logsumexp(true)?)?;
    let probabilities = logprobs.exp()?;
    let present = probabilities.gt(Array::from_f32(0.0))?;
    let products = probabilities.multiply(&logprobs)?;
    // The negative entropy.
    let order = ops::select(present, products, Array::from_f32(0.0))?.sum(None)?;
    let distance = logprobs.subtract(order)?.abs()?;
    let ranks = ops::argsort_axis(distance, 0)?;
    let before = probabilities.take(&ranks)?.cumsum(0, false, false)?;
    let kept = before.lt(Array::from_f32(typical_p))?;
    let keep = ops::zeros_like(&kept)?.put_along_axis(ranks, kept, 0)?;
    mask(logits, &keep)
}

/// Keeps the first tokens, in descending order, up to a total probability of `top_p`.
fn keep_sum(logits: &Array, top_p: f32) -> Result<Array> {
    let probabilities = ops::softmax_axis(logits, 0, true)?;
    let before = probabilities.cumsum(0, false, false)?;
    mask(logits, &before.lt(Array::from_f32(top_p))?)
}

/// Masks tokens whose probability is below `min_p` times the largest.
fn keep_likely(logits: &Array, min_p: f32) -> Result<Array> {
    if min_p <= 0.0 {
        return Ok(logits.clone());
    }
    let floor = logits.max_axis(0, true)?.add(Array::from_f32(min_p.ln()))?;
    mask(logits, &logits.ge(floor)?)
}

fn first(array: &Array, count: usize) -> Result<Array> {
    use indexing::TryIndexOp;
    Ok(array.try_index(..count as i32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that are kept.
    fn kept(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
        let array = Array::from_slice(logits, &[logits.len() as i32]);
        let found = filter(&array, sampling, None).unwrap();
        let ids = match found.ids {
            Some(ids) => ids.to_vec_exact::<u32>().unwrap(),
            None => (0..logits.len() as u32).collect(),
        };
        let logits = found.logits.to_vec_exact::<f32>().unwrap();
        let pairs = ids.into_iter().zip(logits);
        let mut kept: Vec<u32> = pairs
            .filter(|(_, logit)| logit.is_finite())
            .map(|(id, _)| id)
            .collect();
        kept.sort_unstable();
        kept
    }

    fn ln(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn top_n_sigma_measures_from_the_largest() {
        // Mean 2, standard deviation 2, without the excluded token.
        let logits = [4.0, 0.0, 4.0, f32::NEG_INFINITY, 0.0];
        let keep = |top_n_sigma| {
            let sampling = Sampling {
                top_n_sigma,
                ..Sampling::default()
            };
            kept(&sampling, &logits)
        };
        assert_eq!(keep(1.9), [0, 2]);
        assert_eq!(keep(2.1), [0, 1, 2, 4]);
        assert_eq!(keep(0.0), [0, 1, 2, 4]);
        assert_eq!(keep(1e-30), [0, 2]);
        // Equal logits have no deviation.
        let sampling = Sampling {
            top_n_sigma: 1.0,
            ..Sampling::default()
        };
        assert_eq!(kept(&sampling, &[3.0; 3]), [0, 1, 2]);
    }

    #[test]
    fn typical_p_prefers_the_entropy() {
        // Entropy 1.2206: the contents 0.693, 1.386, 2.303, 2.303 (nats), so the distances are
        // 0.527, 0.166, 1.082 and 1.082 after renormalisation of the rest.
        let logits = ln(&[0.5, 0.25, 0.15, 0.1]);
        let keep = |typical_p, top_p| {
            let sampling = Sampling {
                typical_p,
                top_p,
                ..Sampling::default()
            };
            kept(&sampling, &logits)
        };
        assert_eq!(keep(0.2, 1.0), [1]);
        assert_eq!(keep(0.3, 1.0), [0, 1]);
        assert_eq!(keep(0.74, 1.0), [0, 1]);
        assert_eq!(keep(0.8, 1.0), [0, 1, 2]);
        assert_eq!(keep(0.95, 1.0), [0, 1, 2, 3]);
        // Top-p sees the probabilities 2/3 and 1/3.
        assert_eq!(keep(0.74, 0.6), [0]);
        assert_eq!(keep(0.74, 0.7), [0, 1]);
    }
}
