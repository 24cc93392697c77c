//! Attention over quantised keys and values, as mlx-lm computes it.

use mlx_rs::{
    Array,
    ops::{arange, select, softmax_axis},
};

use crate::{error::Result, mlx::QuantizedMatrix};

/// Attention of `queries` `[B, q_heads, L, head_dim]`, the last L positions, over `keys` and
/// `values` `[B, kv_heads, T, head_dim]`. The softmax is computed in f32; the result has the type
/// of `queries`. `mask` is added to the scores; the default is a causal mask.
pub(super) fn attend(
    queries: &Array,
    keys: &QuantizedMatrix,
    values: &QuantizedMatrix,
    scale: f32,
    mask: Option<&Array>,
) -> Result<Array> {
    let (batch, heads, length, width) = (
        queries.dim(0),
        queries.dim(1),
        queries.dim(2),
        queries.dim(3),
    );
    let (kv_heads, seen) = (keys.weight.dim(1), keys.weight.dim(2));
    let grouped = queries
        .multiply(Array::from_f32(scale).as_dtype(queries.dtype())?)?
        .reshape(&[batch, kv_heads, heads / kv_heads, length, width])?;
    // The same keys and values for all heads of a group.
    let shared = |matrix: &QuantizedMatrix| matrix.map(|part| Ok(part.expand_dims(2)?));
    let scores = shared(keys)?.matmul(&grouped)?;
    let scores = match mask {
        Some(mask) => scores.add(mask.expand_dims(1)?)?,
        None if length == 1 => scores,
        None => {
            let position = arange::<_, i32>(seen - length, seen, None)?.expand_dims(1)?;
            let visible = position.ge(arange::<_, i32>(None, seen, None)?)?;
            let hidden = Array::from_f32(f32::NEG_INFINITY).as_dtype(scores.dtype())?;
            select(&visible, scores, hidden)?
        }
    };
    let weights = softmax_axis(scores, -1, true)?;
    let attended = shared(values)?.matmul_rows(&weights)?;
    Ok(attended.reshape(&[batch, heads, length, width])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mlx::{Quantization, QuantizationMode},
        model::unfused_attention,
    };
    use mlx_rs::{Dtype, random::normal};

    #[test]
    fn equals_attention_over_the_dequantised_values() {
        let mode = QuantizationMode::Affine;
        for (bits, kv_heads, length) in [(8, 3, 5), (4, 3, 1), (8, 12, 4), (4, 12, 1)] {
            let quantization = Quantization::new(mode, Some(bits), Some(32)).unwrap();
            let random = |heads: i32, length: i32| {
                normal::<f32>(&[2, heads, length, 64], None, None, None).unwrap()
            };
            let queries = random(12, length);
            let [keys, values] = [0, 1].map(|_| {
                let cached = random(kv_heads, 40);
                QuantizedMatrix::quantize(&cached, quantization).unwrap()
            });
            let dense = |matrix: &QuantizedMatrix| matrix.dequantize(Dtype::Float32).unwrap();
            let expected =
                unfused_attention::attend(&queries, &dense(&keys), &dense(&values), 0.125, None);
            let found = attend(&queries, &keys, &values, 0.125, None).unwrap();
            let error = found.subtract(expected.unwrap()).unwrap().abs().unwrap();
            let error = error.max(None).unwrap().item_exact::<f32>();
            assert!(error <= 1e-5, "{bits} bits, {kv_heads} heads: {error}");
        }
    }
}
