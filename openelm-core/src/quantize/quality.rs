//! The difference of a quantised model from its original on held-out text.

use mlx_rs::{
    Array, Dtype,
    ops::{indexing::TryIndexOp, logsumexp_axis, matmul},
};
use serde::Serialize;

use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    evaluate::compare_logits,
    gate::pause_point,
    mlx::evaluation,
};

/// Logits that are held at once, in numbers.
const BLOCK: usize = 1 << 21;

/// The difference of a model from the unquantised one, over the tokens of the held-out text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Mean Kullback-Leibler divergence `KL(unquantised ‖ model)` per token, in nats.
    pub kl: f64,
    /// Perplexity of the model.
    pub perplexity: f64,
    /// Part of the tokens at which both models have the same most likely token, from 0 to 1.
    pub top1_agreement: f64,
}

/// The last hidden states of a model and its head.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    /// After the final norm, f32 `[B, L, D]`.
    pub(super) hidden: Vec<Array>,
    /// f32 `[V, D]`.
    pub(super) head: Array,
}

/// Number of rows of a block of logits.
pub(super) fn block_rows(vocab: usize) -> usize {
    (BLOCK / vocab.max(1)).max(1)
}

/// Compares `model` with the `reference` on `sequences`, the tokens that gave the hidden states.
///
/// # Errors
/// [`Error::NonFinite`] if a logit is not finite; [`Error::Cancelled`]; [`Error::Mlx`].
pub(super) fn compare(
    reference: &Outputs,
    model: &Outputs,
    sequences: &[Vec<u32>],
    cancel: &CancelHandle,
) -> Result<Quality> {
    let (mut tokens, mut kl, mut same, mut nats) = (0_usize, 0.0, 0_usize, 0.0);
    let mut next = sequences.iter();
    let rows = block_rows(model.head.dim(0) as usize) as i32;
    for (theirs, ours) in reference.hidden.iter().zip(&model.hidden) {
        for index in 0..ours.dim(0) {
            let Some(sequence) = next.next() else { break };
            // The last token has no token after it.
            let count = sequence.len() as i32 - 1;
            let mut start = 0;
            while start < count {
                cancel.check()?;
                pause_point(cancel, || Ok(()))?;
                let end = (start + rows).min(count);
                let logits = |hidden: &Array, head: &Array| -> Result<Array> {
                    let block = hidden.try_index((index, start..end))?;
                    Ok(matmul(block, head.t())?)
                };
                let (p, q) = (logits(theirs, &reference.head)?, logits(ours, &model.head)?);
                let found = compare_logits(&p, &q)?;
                let targets = &sequence[start as usize + 1..=end as usize];
                let targets = Array::from_slice(targets, &[end - start, 1]);
                let chosen = q.take_along_axis(&targets, -1)?.squeeze_axes(&[-1])?;
                let loss = logsumexp_axis(&q, -1, false)?.subtract(chosen)?;
                let loss = loss.as_dtype(Dtype::Float32)?.sum(None)?;
                evaluation::complete([&found.kl, &found.same_top, &loss])?;
                kl += sum(&found.kl)?;
                nats += f64::from(loss.item_exact::<f32>());
                let agreed = found.same_top.to_vec_exact::<bool>()?;
                same += agreed.into_iter().filter(|same| *same).count();
                tokens += (end - start) as usize;
                start = end;
            }
        }
    }
    let count = tokens as f64;
    let quality = Quality {
        kl: kl / count,
        perplexity: (nats / count).exp(),
        top1_agreement: same as f64 / count,
    };
    if !(quality.kl.is_finite() && quality.perplexity.is_finite()) {
        return Err(Error::NonFinite {
            place: "the head".into(),
            problem: "a logit of the held-out text is NaN or infinity".into(),
        });
    }
    Ok(quality)
}

fn sum(values: &Array) -> Result<f64> {
    let values = values.to_vec_exact::<f32>()?;
    Ok(values.into_iter().map(f64::from).sum())
}
