//! Attention from single operations, in place of MLX's fused kernel.

use mlx_rs::{
    Array, Dtype,
    ops::{arange, matmul, select, softmax_axis},
};

use crate::error::Result;

/// Attention of `queries` `[B, q_heads, L, head_dim]`, the last L positions, over `keys` and
/// `values` `[B, kv_heads, T, head_dim]`. Scores are f32, the result has the type of `queries`.
/// `mask` is added to the scores; the default is a causal mask.
pub(super) fn attend(
    queries: &Array,
    keys: &Array,
    values: &Array,
    scale: f32,
    mask: Option<&Array>,
) -> Result<Array> {
    let (batch, heads, length, width) = (
        queries.dim(0),
        queries.dim(1),
        queries.dim(2),
        queries.dim(3),
    );
    let (kv_heads, seen) = (keys.dim(1), keys.dim(2));
    let grouped = queries.reshape(&[batch, kv_heads, heads / kv_heads, length, width])?;
    let keys = keys.expand_dims(2)?.swap_axes(-1, -2)?;
    let scores = matmul(grouped, keys)?.as_dtype(Dtype::Float32)?;
    let scores = scores.multiply(Array::from_f32(scale))?;
    let scores = match mask {
        // The same mask for all heads of a group.
        Some(mask) => scores.add(mask.as_dtype(Dtype::Float32)?.expand_dims(1)?)?,
        None if length == 1 => scores,
        None => {
            let position = arange::<_, i32>(seen - length, seen, None)?.expand_dims(1)?;
            let visible = position.ge(arange::<_, i32>(None, seen, None)?)?;
            select(&visible, scores, Array::from_f32(f32::NEG_INFINITY))?
        }
    };
    let weights = softmax_axis(scores, -1, true)?.as_dtype(queries.dtype())?;
    let attended = matmul(weights, values.expand_dims(2)?)?;
    Ok(attended.reshape(&[batch, heads, length, width])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_rs::{
        fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention},
        random::normal,
    };

    /// MLX's fused kernel for one position, which reads long contexts in two passes on some GPUs
    /// (<https://github.com/ml-explore/mlx/issues/4022>), and for several.
    #[test]
    fn fused_kernel_agrees_at_the_limits_of_its_passes() {
        let random = |heads: i32, length: i32, dtype: Dtype| {
            let shape = [1, heads, length, 64];
            let values = normal::<f32>(&shape, None, None, None).unwrap();
            values.as_dtype(dtype).unwrap()
        };
        for seen in [1023, 1024, 2047] {
            for length in [1, 5] {
                for (dtype, bound) in [
                    (Dtype::Float32, 1e-4),
                    (Dtype::Float16, 2e-2),
                    (Dtype::Bfloat16, 2e-2),
                ] {
                    let [keys, values] = [0, 1].map(|_| random(3, seen, dtype));
                    let queries = random(12, length, dtype);
                    let mask = (length > 1).then_some(ScaledDotProductAttentionMask::Causal);
                    let fused =
                        scaled_dot_product_attention(&queries, &keys, &values, 0.125, mask, None);
                    let found = attend(&queries, &keys, &values, 0.125, None).unwrap();
                    assert_eq!(found.dtype(), dtype);
                    let error = found.subtract(fused.unwrap()).unwrap().abs().unwrap();
                    let error = error.as_dtype(Dtype::Float32).unwrap().max(None).unwrap();
                    let error = error.item_exact::<f32>();
                    assert!(error <= bound, "{seen} keys, {length}, {dtype:?}: {error}");
                }
            }
        }
    }
}
