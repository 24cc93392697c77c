//! Grouped-query attention with a fused query-key-value projection and normalised queries and
//! keys (paper section 2.1; `general_gpt.py`, `MultiHeadCausalAttention`).

use mlx_rs::{
    Array, Dtype,
    fast::{self, ScaledDotProductAttentionMask},
    ops::{arange, concatenate, indexing::TryIndexOp, matmul, ones, power, select},
    stop_gradient,
};

use super::{
    forward_context::ForwardContext,
    kv_cache::{Cached, LayerCache, STEP},
    linear::{Linear, LinearVisitor, NormVisitor},
    qk_norm::QkNorm,
    quantized_attention,
    rms_norm::RmsNorm,
    rope::Rotation,
    split::split_at,
    unfused_attention,
};
use crate::{
    config::{
        Config, Layer,
        tensor_names::{self, OUT_PROJ, QKV_PROJ},
    },
    error::Result,
    mlx::{
        Device,
        primitives::{CpuPrimitives, Heads, Span, Then},
    },
    weights::Weights,
};

/// The attention block of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    qkv_proj: Linear,
    qk_norm: Option<QkNorm>,
    out_proj: Linear,
    q_heads: i32,
    kv_heads: i32,
    head_dim: i32,
    device: Device,
    fused: bool,
}

impl Attention {
    /// Takes the tensors of the layer `index` from `weights`.
    pub(crate) fn new(
        config: &Config,
        layer: &Layer,
        index: usize,
        weights: &mut Weights,
    ) -> Result<Self> {
        let device = Device::current()?;
        let (width, head_dim) = (config.model_dim(), config.head_dim());
        let heads = layer.q_heads + 2 * layer.kv_heads;
        let rows = heads * head_dim;
        let qkv_proj =
            Linear::new(weights.take_matrix(&tensor_names::layer(index, QKV_PROJ), rows, width)?);
        let columns = layer.q_heads * head_dim;
        let out_proj = Linear::new(weights.take_matrix(
            &tensor_names::layer(index, OUT_PROJ),
            width,
            columns,
        )?);
        let qk_norm = if config.normalize_qk_projections() {
            Some(QkNorm::new(config, layer, index, weights, device)?)
        } else {
            None
        };
        Ok(Self {
            qkv_proj,
            qk_norm,
            out_proj,
            q_heads: layer.q_heads as i32,
            kv_heads: layer.kv_heads as i32,
            head_dim: head_dim as i32,
            device,
            fused: true,
        })
    }

    /// `residual` and the attention of `x`, both `[B, L, D]`, at the positions of `context`, over
    /// these positions and the cached ones of each segment's cache. Without caches, over these
    /// positions only.
    pub(crate) fn forward(
        &self,
        x: &Array,
        residual: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        let joined = self.attended(x, context, caches)?;
        let fused = self.device == Device::Gpu && !caches.is_empty();
        self.out_proj.forward_onto(residual, &joined, fused)
    }

    /// The attention `[B, L, q_heads · head_dim]` of `x`, the input of `out_proj`.
    pub(super) fn attended(
        &self,
        x: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        self.heads(&self.qkv_proj.forward(x)?, context, caches)
    }

    /// Like [`forward`](Self::forward) of the norm of `x`, with `x` as the residual, by primitives.
    pub(super) fn forward_on_cpu(
        &self,
        primitives: CpuPrimitives,
        x: &Array,
        norm: &RmsNorm,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        let qkv = self
            .qkv_proj
            .forward_on_cpu(primitives, x, Some(norm), Then::Nothing)?;
        let joined = match self.heads_on_cpu(primitives, &qkv, context, caches)? {
            Some(joined) => joined,
            None => self.heads(&qkv, context, caches)?,
        };
        self.out_proj
            .forward_on_cpu(primitives, &joined, None, Then::Add(x))
    }

    /// The attention `[1, L, q_heads · head_dim]` of the projections `qkv` over plain caches, by a
    /// primitive; `None` for other caches, for masks, and for single operations.
    fn heads_on_cpu(
        &self,
        primitives: CpuPrimitives,
        qkv: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Option<Array>> {
        let Rotation::Table { cos, sin } = &context.rotation else {
            return Ok(None);
        };
        let has_masks = context.segment_masks.iter().any(Option::is_some);
        let count = caches.len();
        let mut plain = Vec::with_capacity(count);
        for cache in caches.iter_mut() {
            if let LayerCache::Plain(cache) = &mut **cache {
                plain.push(cache);
            }
        }
        let is_empty = context.segments.iter().any(|segment| segment.length == 0);
        let fits = self.head_dim <= WIDEST_HEAD && !is_empty && qkv.dim(0) == 1;
        if !self.fused || has_masks || plain.len() < count || !fits {
            return Ok(None);
        }
        let heads = Heads {
            queries: self.q_heads,
            keys: self.kv_heads,
            head_dim: self.head_dim,
            norms: self.qk_norm.as_ref().map(QkNorm::weights),
        };
        let spans = context.segments.iter().map(|segment| Span {
            offset: segment.offset,
            length: segment.length,
        });
        let spans: Vec<_> = spans.collect();
        // A second handle during the evaluation would prevent a write in place.
        let before: Vec<_> = plain.iter_mut().map(|cache| cache.take()).collect();
        let attended = primitives.attend(qkv, [cos, sin], heads, &spans, &before, STEP);
        let attended = match attended {
            Ok(attended) => attended,
            Err(error) => {
                for (cache, buffers) in std::iter::zip(plain, before) {
                    buffers.into_iter().for_each(|buffers| cache.put(buffers));
                }
                return Err(error);
            }
        };
        drop(before);
        for (cache, buffers) in std::iter::zip(plain, attended.caches) {
            cache.put(buffers);
        }
        Ok(Some(attended.output))
    }

    /// The attention `[B, L, q_heads · head_dim]` of the projections `qkv`
    /// `[B, L, (q_heads + 2 kv_heads) · head_dim]`.
    fn heads(
        &self,
        qkv: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        let (batch, length) = (qkv.dim(0), qkv.dim(1));
        // The heads are ordered: all queries, all keys, all values.
        let rotated_heads = self.q_heads + self.kv_heads;
        let heads = rotated_heads + self.kv_heads;
        let qkv = qkv.reshape(&[batch, length, heads, self.head_dim])?;
        let whole = caches.is_empty();
        let rotation = &context.rotation;
        let (queries, keys, values) = match &self.qk_norm {
            Some(norm) if whole && norm.is_separate() => {
                let [queries, keys, values] = split_at(&qkv, [self.q_heads, rotated_heads], 2)?;
                let [queries, keys] = norm.forward_separate(&queries, &keys)?;
                (rotation.apply(&queries)?, rotation.apply(&keys)?, values)
            }
            norm => {
                let [qk, values] = split_at(&qkv, [rotated_heads], 2)?;
                let qk = match norm {
                    Some(norm) => norm.forward(&qk)?,
                    None => qk,
                };
                let [queries, keys] = split_at(&rotation.apply(&qk)?, [self.q_heads], 1)?;
                (queries, keys, values)
            }
        };
        let values = values.transpose_axes(&[0, 2, 1, 3])?;
        // Mixed precision: the weights of the norms, and so queries and keys, are f32.
        let (queries, keys) = if queries.dtype() == values.dtype() {
            (queries, keys)
        } else {
            let dtype = values.dtype();
            (queries.as_dtype(dtype)?, keys.as_dtype(dtype)?)
        };
        let attended = match caches {
            [] if self.device == Device::Cpu => {
                self.attend_in_blocks(&queries, &keys, &values, context.mask)?
            }
            [] => self.attend(&queries, &keys, &values, context.mask)?,
            caches => self.attend_cached(&queries, &keys, &values, context, caches)?,
        };
        Ok(attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[
            batch,
            length,
            self.q_heads * self.head_dim,
        ])?)
    }

    /// Attention of each segment over its cache, to which its keys and values are added.
    fn attend_cached(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        let masks = &context.segment_masks;
        if let ([segment], [mask], [cache]) = (&*context.segments, &**masks, &mut *caches) {
            let cached = cache.update(segment.offset, keys, values)?;
            return self.attend_to(queries, &cached, mask.as_ref());
        }
        let mut start = 0;
        let segments = std::iter::zip(&context.segments, masks);
        let parts = std::iter::zip(segments, caches).map(|((segment, mask), cache)| {
            let end = start + segment.length as i32;
            let part = |x: &Array| x.try_index((.., .., start..end, ..));
            let (queries, keys, values) = (part(queries)?, part(keys)?, part(values)?);
            start = end;
            let cached = cache.update(segment.offset, &keys, &values)?;
            self.attend_to(&queries, &cached, mask.as_ref())
        });
        Ok(concatenate(&parts.collect::<Result<Vec<_>>>()?, 2)?)
    }

    /// Attention of `queries` `[B, q_heads, L, head_dim]`, the last L positions, over a cache.
    fn attend_to(&self, queries: &Array, cached: &Cached, mask: Option<&Array>) -> Result<Array> {
        match cached {
            Cached::Dense(keys, values) => self.attend(queries, keys, values, mask),
            Cached::Quantized(keys, values) => {
                let scale = (self.head_dim as f32).powf(-0.5);
                quantized_attention::attend(queries, keys, values, scale, mask)
            }
        }
    }

    /// Chooses between MLX's fused attention and single operations.
    pub(super) fn set_fused(&mut self, fused: bool) {
        self.fused = fused;
    }

    /// The weight that is derived from the weights of the norms.
    pub(super) fn derived_weight(&self) -> Option<&Array> {
        self.qk_norm.as_ref().map(QkNorm::derived_weight)
    }

    /// Calls `visit` with the name of each projection within the layer.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        visit(QKV_PROJ, &mut self.qkv_proj)?;
        visit(OUT_PROJ, &mut self.out_proj)
    }

    /// Calls `visit` with the name within the layer and the weight of each norm.
    pub(crate) fn visit_norms(&mut self, visit: &mut NormVisitor<'_>) -> Result<()> {
        match &mut self.qk_norm {
            Some(norm) => norm.visit(visit),
            None => Ok(()),
        }
    }

    /// Attention of `queries` `[B, q_heads, L, head_dim]`, the last L positions, over `keys` and
    /// `values` `[B, kv_heads, T, head_dim]`.
    fn attend(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        mask: Option<&Array>,
    ) -> Result<Array> {
        let length = queries.dim(2);
        let scale = (self.head_dim as f32).powf(-0.5);
        if !self.fused {
            return unfused_attention::attend(queries, keys, values, scale, mask);
        }
        if length == 1 && self.device == Device::Cpu && queries.dtype() == Dtype::Float32 {
            return self.attend_one(queries, keys, values, scale);
        }
        let mask = match mask {
            Some(mask) => Some(ScaledDotProductAttentionMask::Array(mask)),
            None => (length > 1).then_some(ScaledDotProductAttentionMask::Causal),
        };
        Ok(fast::scaled_dot_product_attention(
            queries, keys, values, scale, mask, None,
        )?)
    }

    /// Like [`attend`](Self::attend) for whole sequences on a CPU, in blocks of positions, each
    /// with only the keys that its mask allows: MLX has no fused CPU kernel and computes all.
    fn attend_in_blocks(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        mask: Option<&Array>,
    ) -> Result<Array> {
        let length = queries.dim(2);
        let block = (length / 8).max(SMALLEST_BLOCK);
        let parts = (0..length).step_by(block as usize).map(|start| {
            let end = (start + block).min(length);
            let seen = |x: &Array| x.try_index((.., .., ..end, ..));
            let mask = mask.map(|mask| mask.try_index((.., .., start..end, ..end)));
            let (queries, mask) = (
                queries.try_index((.., .., start..end, ..))?,
                mask.transpose()?,
            );
            let (keys, values) = (seen(keys)?, seen(values)?);
            match queries.dtype() {
                Dtype::Float32 => self.attend_block(&queries, &keys, &values, mask, start),
                _ => self.attend(&queries, &keys, &values, mask.as_ref()),
            }
        });
        Ok(concatenate(&parts.collect::<Result<Vec<_>>>()?, 2)?)
    }

    /// Attention of the positions from `start`, for training on a CPU, with powers in place of
    /// exponentials as in [`attend_one`](Self::attend_one). `mask` is added to the scores; the
    /// default is a causal mask.
    fn attend_block(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        mask: Option<Array>,
        start: i32,
    ) -> Result<Array> {
        let (batch, length, seen) = (queries.dim(0), queries.dim(2), keys.dim(2));
        let mask = match mask {
            // The same mask for all heads of a group.
            Some(mask) => mask.expand_dims(1)?,
            None => {
                let position = arange::<_, i32>(start, start + length, None)?.expand_dims(1)?;
                let visible = position.ge(arange::<_, i32>(None, seen, None)?)?;
                select(&visible, Array::from_f32(0.0), Array::from_f32(-3e4))?
            }
        };
        let group = self.q_heads / self.kv_heads;
        let shape = [batch, self.kv_heads, group, length, self.head_dim];
        let scale = (self.head_dim as f32).powf(-0.5) * std::f32::consts::LOG2_E;
        let queries = queries.multiply(Array::from_f32(scale))?.reshape(&shape)?;
        let keys = keys.expand_dims(2)?.swap_axes(-1, -2)?;
        let scores = matmul(queries, keys)?.add(mask)?;
        let below = stop_gradient(scores.max_axis(-1, true)?)?.subtract(&scores)?;
        let weights = power(Array::from_f32(0.5), below)?;
        let sums = weights.sum_axis(-1, true)?;
        let attended = matmul(&weights, values.expand_dims(2)?)?.divide(sums)?;
        Ok(attended.reshape(&[batch, self.q_heads, length, self.head_dim])?)
    }

    /// Attention of one position on a CPU. MLX has no fused kernel for it, and its softmax is most
    /// of the cost of a long context, because `exp` takes three times as long as `power`.
    fn attend_one(
        &self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        scale: f32,
    ) -> Result<Array> {
        let group = self.q_heads / self.kv_heads;
        // Heads that share keys and values are rows of one product, which reads both once.
        let shape = [queries.dim(0), self.kv_heads, group, self.head_dim];
        // softmax(s) from powers of two: 2^(s · log2(e) - max).
        let scale = Array::from_f32(scale * std::f32::consts::LOG2_E);
        let queries = queries.multiply(scale)?.reshape(&shape)?;
        let scores = matmul(queries, keys.swap_axes(-1, -2)?)?;
        let weights = if self.needs_largest() {
            let below = scores.max_axis(-1, true)?.subtract(&scores)?;
            power(Array::from_f32(0.5), below)?
        } else {
            power(Array::from_f32(2.0), scores)?
        };
        // A product with ones is faster than a sum.
        let sums = matmul(&weights, ones::<f32>(&[keys.dim(2), 1])?)?;
        let attended = matmul(weights, values)?.divide(sums)?;
        Ok(attended.reshape(&[shape[0], self.q_heads, 1, self.head_dim])?)
    }

    /// True if the largest score must be subtracted before the exponentials are computed. If
    /// normalised queries and keys bound the score, 2^s neither overflows nor underflows.
    fn needs_largest(&self) -> bool {
        let bound = self.qk_norm.as_ref().map(QkNorm::largest_score);
        bound.is_none_or(|bound| bound * std::f32::consts::LOG2_E > LARGEST_POWER)
    }
}

/// Exponent of 2 whose power can be summed over a million positions and multiplied by any value.
const LARGEST_POWER: f32 = 60.0;

/// Largest width of a head that the primitive takes.
const WIDEST_HEAD: i32 = 256;

/// Positions below which a block costs more than it saves.
const SMALLEST_BLOCK: i32 = 64;

#[cfg(test)]
mod tests {
    use mlx_rs::random::normal;

    use super::*;
    use crate::mlx::Matrix;

    /// Both computations of one position agree with MLX's softmax.
    #[test]
    fn one_position_matches_mlx() {
        let (q_heads, kv_heads, head_dim, length) = (8, 2, 16, 300);
        let mut seed = 0;
        let mut random = |shape: &[i32]| {
            seed += 1;
            let key = mlx_rs::random::key(seed).unwrap();
            normal::<f32>(shape, None, None, &key).unwrap()
        };
        let normalised = |x: &Array| fast::rms_norm(x, None, 1e-6).unwrap();
        let none = || Linear::new(Matrix::Dense(Array::from_slice(&[1.0f32], &[1, 1])));
        // Largest scaled scores: 4 · 4 · 0.5² = 4, 4 · 6² = 144 and, for unknown weights, infinity.
        // The rounding error of a score, and so of the result, grows with it.
        for (weight, bounded, tolerance) in [
            (0.5, true, 1e-5),
            (6.0, false, 1e-4),
            (f32::NAN, false, 1e-5),
        ] {
            let norm =
                |weight: f32| Array::full::<f32>(&[head_dim], Array::from_f32(weight)).unwrap();
            let known = weight.is_finite();
            let attention = Attention {
                qkv_proj: none(),
                qk_norm: Some(
                    QkNorm::of(
                        [norm(weight), norm(weight)],
                        [q_heads, kv_heads],
                        1e-6,
                        Device::Cpu,
                    )
                    .unwrap(),
                ),
                out_proj: none(),
                q_heads,
                kv_heads,
                head_dim,
                device: Device::Cpu,
                fused: true,
            };
            assert_eq!(attention.needs_largest(), !bounded, "{weight}");
            let scale = Array::from_f32(if known { weight } else { 1.0 });
            let queries = normalised(&random(&[1, q_heads, 1, head_dim]))
                .multiply(&scale)
                .unwrap();
            let keys = normalised(&random(&[1, kv_heads, length, head_dim]))
                .multiply(&scale)
                .unwrap();
            let values = random(&[1, kv_heads, length, head_dim]);
            let scale = (head_dim as f32).powf(-0.5);
            let found = attention
                .attend_one(&queries, &keys, &values, scale)
                .unwrap();
            let expected =
                fast::scaled_dot_product_attention(&queries, &keys, &values, scale, None, None)
                    .unwrap();
            let error = found
                .subtract(&expected)
                .unwrap()
                .abs()
                .unwrap()
                .max(None)
                .unwrap();
            assert!(error.item_exact::<f32>() < tolerance, "{weight}: {error}");
        }
    }
}
