//! Log-probabilities of the prompt's tokens.

use mlx_rs::{
    Array,
    ops::{self, indexing::TryIndexOp},
};

use super::event::{PromptToken, TokenLogprob};
use crate::{error::Result, mlx::evaluation};

/// The log-probabilities of `tokens`, one for each row of `logits`, f32 `[V]`, before it, with the
/// `top` most likely tokens at its place. `None` if a value is not finite. Waits for the device.
pub(super) fn prompt_logprobs(
    tokens: &[u32],
    logits: &[Array],
    top: usize,
) -> Result<Option<Vec<PromptToken>>> {
    let Some(logits) = logits.get(..tokens.len()).filter(|rows| !rows.is_empty()) else {
        return Ok(Some(Vec::new()));
    };
    let logits = ops::stack(logits, 0)?;
    let (rows, width) = (tokens.len(), logits.dim(1) as usize);
    let all = logits.subtract(logits.logsumexp_axes(&[1], true)?)?;
    // An id without a piece has no logit.
    let within: Vec<u32> = tokens.iter().map(|&id| id.min(width as u32 - 1)).collect();
    let ids = Array::from_slice(&within, &[rows as i32, 1]);
    let own = all.take_along_axis(&ids, 1)?.contiguous()?;
    let likeliest = match top {
        0 => None,
        // A sort of all rows takes longer than the pass of a small model.
        1 => {
            let likeliest = ops::indexing::argmax_axis(&all, 1, true)?;
            let values = all.take_along_axis(&likeliest, 1)?;
            Some((likeliest.contiguous()?, values.contiguous()?))
        }
        top => {
            let order = ops::argsort_axis(all.negative()?, 1)?;
            let order = order.try_index((.., ..top as i32))?;
            let values = all.take_along_axis(&order, 1)?;
            Some((order.contiguous()?, values.contiguous()?))
        }
    };
    let pairs = likeliest.iter().flat_map(|(order, values)| [order, values]);
    evaluation::complete(pairs.chain([&own]))?;
    let own = own.to_vec_exact::<f32>()?;
    if own.iter().any(|logprob| !logprob.is_finite()) {
        return Ok(None);
    }
    let mut prompt: Vec<_> = std::iter::zip(tokens, own)
        .map(|(&id, logprob)| PromptToken {
            id,
            logprob: if (id as usize) < width {
                logprob
            } else {
                f32::NEG_INFINITY
            },
            top_logprobs: Vec::new(),
        })
        .collect();
    if let Some((order, values)) = likeliest {
        let (order, values) = (order.to_vec_exact::<u32>()?, values.to_vec_exact::<f32>()?);
        let rows = std::iter::zip(order.chunks_exact(top), values.chunks_exact(top));
        for (token, (ids, values)) in prompt.iter_mut().zip(rows) {
            let pairs = std::iter::zip(ids, values);
            token.top_logprobs = pairs
                .map(|(&id, &logprob)| TokenLogprob { id, logprob })
                .collect();
        }
    }
    Ok(Some(prompt))
}
