//! RMSNorm over `head_dim` of all query and key heads.

use mlx_rs::{
    Array, Dtype, fast,
    ops::{broadcast_to, concatenate},
};

use super::{linear::NormVisitor, rms_norm::by_primitive};
use crate::{
    config::{
        Config, Layer,
        tensor_names::{self, K_NORM, Q_NORM},
    },
    error::Result,
    mlx::Device,
    weights::Weights,
};

/// The norms of the queries and keys of one layer.
#[derive(Debug, Clone)]
pub(super) struct QkNorm {
    /// `[head_dim]`.
    q_norm: Array,
    /// `[head_dim]`.
    k_norm: Array,
    q_heads: i32,
    kv_heads: i32,
    /// `q_norm` for each query head, then `k_norm` for each key head:
    /// `[q_heads + kv_heads, head_dim]`.
    weight: Array,
    eps: f32,
    device: Device,
    /// True if the weights are not the checkpoint's: training may differentiate them.
    replaced: bool,
    /// Upper bound of the magnitude of a scaled score: infinite if the weights may change, and on a
    /// GPU.
    largest_score: f32,
}

impl QkNorm {
    /// Takes the tensors of the layer `index` from `weights`.
    pub(super) fn new(
        config: &Config,
        layer: &Layer,
        index: usize,
        weights: &mut Weights,
        device: Device,
    ) -> Result<Self> {
        let mut norm = |part| {
            let name = tensor_names::weight(&tensor_names::layer(index, part));
            weights.take(&name, &[config.head_dim()])
        };
        let norms = [norm(Q_NORM)?, norm(K_NORM)?];
        let heads = [layer.q_heads as i32, layer.kv_heads as i32];
        Self::of(norms, heads, config.rms_norm_eps() as f32, device)
    }

    /// The norms with the weights `[q_norm, k_norm]` for `[q_heads, kv_heads]`.
    pub(super) fn of(
        [q_norm, k_norm]: [Array; 2],
        [q_heads, kv_heads]: [i32; 2],
        eps: f32,
        device: Device,
    ) -> Result<Self> {
        let weight = per_head(&q_norm, q_heads, &k_norm, kv_heads)?;
        // For a GPU, the model evaluates the weights of all layers at once, and no largest score is
        // needed.
        let largest_score = match device {
            Device::Cpu => {
                weight.eval()?;
                largest_score(&q_norm, &k_norm)?
            }
            Device::Gpu => f32::INFINITY,
        };
        Ok(Self {
            q_norm,
            k_norm,
            q_heads,
            kv_heads,
            weight,
            eps,
            device,
            replaced: false,
            largest_score,
        })
    }

    /// `[B, L, q_heads + kv_heads, head_dim]` to the same shape and type. Cast back before the
    /// product with the weight, as in CoreNet's `RMSNorm`.
    pub(super) fn forward(&self, qk: &Array) -> Result<Array> {
        match by_primitive(qk, &self.weight, self.eps, self.device)? {
            Some(normed) => Ok(normed),
            None => Ok(fast::rms_norm(qk, None, self.eps)?.multiply(&self.weight)?),
        }
    }

    /// True if [`forward_separate`](Self::forward_separate) takes fewer kernels in training: on a
    /// GPU, if the weights have gradients.
    pub(super) fn is_separate(&self) -> bool {
        self.replaced && self.device == Device::Gpu
    }

    /// [`forward`](Self::forward) of `queries` `[B, L, q_heads, head_dim]` and `keys`
    /// `[B, L, kv_heads, head_dim]`.
    pub(super) fn forward_separate(&self, queries: &Array, keys: &Array) -> Result<[Array; 2]> {
        let queries = fast::rms_norm(queries, Some(&self.q_norm), self.eps)?;
        let keys = fast::rms_norm(keys, Some(&self.k_norm), self.eps)?;
        Ok([queries, keys])
    }

    /// The weight that is derived from the weights of the norms.
    pub(super) fn derived_weight(&self) -> &Array {
        &self.weight
    }

    /// The weights of the norms of queries and of keys, and their epsilon.
    pub(super) fn weights(&self) -> (&Array, &Array, f32) {
        (&self.q_norm, &self.k_norm, self.eps)
    }

    /// Upper bound of the magnitude of a scaled score.
    pub(super) fn largest_score(&self) -> f32 {
        self.largest_score
    }

    /// Calls `visit` with the name within the layer and the weight of both norms.
    pub(super) fn visit(&mut self, visit: &mut NormVisitor<'_>) -> Result<()> {
        let changed = visit(Q_NORM, &mut self.q_norm)?;
        if visit(K_NORM, &mut self.k_norm)? || changed {
            self.weight = per_head(&self.q_norm, self.q_heads, &self.k_norm, self.kv_heads)?;
            self.replaced = true;
            self.largest_score = f32::INFINITY;
        }
        Ok(())
    }
}

/// `q_norm` `q_heads` times, then `k_norm` `kv_heads` times.
fn per_head(q_norm: &Array, q_heads: i32, k_norm: &Array, kv_heads: i32) -> Result<Array> {
    let repeat = |norm: &Array, heads: i32| broadcast_to(norm, &[heads, norm.size() as i32]);
    let parts = [repeat(q_norm, q_heads)?, repeat(k_norm, kv_heads)?];
    Ok(concatenate(&parts, 0)?)
}

/// At most `head_dim^-½ · |q| · |k|`: a normalised head has length `head_dim^½` before its weight
/// multiplies it, and rotation preserves the length.
fn largest_score(q_norm: &Array, k_norm: &Array) -> Result<f32> {
    let largest = |norm: &Array| -> Result<f32> {
        let largest = norm.abs()?.max(None)?.as_dtype(Dtype::Float32)?;
        let largest = largest.to_vec_exact::<f32>()?.first().copied();
        Ok(largest
            .filter(|largest| largest.is_finite())
            .unwrap_or(f32::INFINITY))
    };
    Ok((q_norm.size() as f32).sqrt() * largest(q_norm)? * largest(k_norm)?)
}

#[cfg(test)]
mod tests {
    use mlx_rs::{ops::split_at_indices, random, transforms::fallible_vjp};

    use super::*;

    /// Values and gradients of the heads and both weights.
    #[test]
    fn both_forms_agree() {
        let (heads, dim) = ([4, 2], 16);
        let mut seed = 0;
        let mut random = |shape: &[i32]| {
            seed += 1;
            let key = random::key(seed).unwrap();
            random::normal::<f32>(shape, None, None, &key).unwrap()
        };
        let primals = [random(&[2, 3, 6, dim]), random(&[dim]), random(&[dim])];
        let cotangent = random(&[2, 3, 6, dim]);
        let [joint, separate] = [false, true].map(|separate| {
            let forward = |x: &[Array]| {
                let [qk, q_norm, k_norm] = x else {
                    panic!("three arguments")
                };
                let start = Array::ones::<f32>(&[dim]).unwrap();
                let starts = [start.clone(), start];
                let mut norm = QkNorm::of(starts, heads, 1e-6, Device::Gpu).unwrap();
                assert!(!norm.is_separate());
                norm.visit(&mut |name, weight| {
                    *weight = if name == Q_NORM { q_norm } else { k_norm }.clone();
                    Ok(true)
                })
                .unwrap();
                assert!(norm.is_separate());
                if !separate {
                    return Ok(vec![norm.forward(qk).unwrap()]);
                }
                let parts = split_at_indices(qk, &heads[..1], 2)?;
                let parts = norm.forward_separate(&parts[0], &parts[1]).unwrap();
                Ok::<_, mlx_rs::error::Exception>(vec![concatenate(&parts, 2)?])
            };
            let cotangents = std::slice::from_ref(&cotangent);
            let (mut values, gradients) = fallible_vjp(forward, &primals, cotangents).unwrap();
            values.extend(gradients);
            let values = values.iter().map(|x| x.to_vec_exact::<f32>().unwrap());
            values.collect::<Vec<_>>()
        });
        assert_eq!(joint.len(), 4);
        for (joint, separate) in joint.iter().flatten().zip(separate.iter().flatten()) {
            let error = (joint - separate).abs();
            assert!(error <= 1e-5 * (1.0 + joint.abs()), "{joint}, {separate}");
        }
    }
}
