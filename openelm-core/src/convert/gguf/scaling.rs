//! Computes the multipliers of heads and widths, which a GGUF file does not store.
//!
//! Apple's recipe is tried first (`crate::config::scaling`), so that the `config.json` of a
//! released model is as Apple wrote it; other widths get settings that give the same layers.

use serde_json::{Value, json};

use crate::config::{LayerWiseConfig, Multipliers, ffn_dim, query_heads};

/// Query heads per KV head, if the number is the same in every layer.
pub(crate) fn groups(q_heads: &[usize], kv_heads: &[usize]) -> Option<usize> {
    let mut ratios = std::iter::zip(q_heads, kv_heads).map(|(q_heads, kv_heads)| {
        let ratio = q_heads.checked_div(*kv_heads)?;
        (ratio * kv_heads == *q_heads).then_some(ratio)
    });
    let first = ratios.next()??;
    ratios.all(|ratio| ratio == Some(first)).then_some(first)
}

/// Multipliers that give the heads: Apple's, or one for all layers. Without a match the lists of
/// heads are used.
pub(crate) fn head_scaling(
    q_heads: &[usize],
    model_dim: usize,
    head_dim: usize,
    groups: usize,
) -> Option<Value> {
    let follow = |multipliers: &Multipliers| {
        let heads = multipliers
            .per_layer(q_heads.len())
            .into_iter()
            .map(|multiplier| query_heads(model_dim, head_dim, Some(groups), multiplier));
        heads.eq(q_heads.iter().copied())
    };
    let LayerWiseConfig {
        qkv_multipliers: apples,
        ..
    } = LayerWiseConfig::default();
    if let Multipliers::Range(first, last) = apples
        && follow(&apples)
    {
        return Some(json!([first, last]));
    }
    let width = q_heads.first()?.checked_mul(head_dim)?;
    let uniform = width as f64 / model_dim as f64;
    follow(&Multipliers::Uniform(uniform)).then(|| json!(uniform))
}

/// One multiplier per layer and the divisor that give these widths: Apple's line from 0.5 to 4 if
/// it matches, else the quotients.
pub(crate) fn ffn_scaling(ffn_dims: &[usize], model_dim: usize) -> (Vec<f64>, usize) {
    let line = LayerWiseConfig::default()
        .ffn_multipliers
        .per_layer(ffn_dims.len());
    let follow = |multipliers: &[f64], divisor: usize| {
        let widths = multipliers
            .iter()
            .map(|value| ffn_dim(model_dim, divisor, *value));
        widths.eq(ffn_dims.iter().copied())
    };
    for divisor in [256, 128, 64, 32, 16, 8, 4, 2, 1] {
        if follow(&line, divisor) {
            return (line, divisor);
        }
    }
    let divisor = ffn_dims
        .iter()
        .fold(0, |divisor, dim| common_divisor(divisor, *dim));
    let quotients = ffn_dims.iter().map(|dim| *dim as f64 / model_dim as f64);
    (quotients.collect(), divisor)
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn recovered_multipliers_give_the_widths() {
        for preset in Preset::ALL {
            let config = preset.config();
            let widths: Vec<usize> = config.layers().iter().map(|layer| layer.ffn_dim).collect();
            let (multipliers, divisor) = ffn_scaling(&widths, config.model_dim());
            assert_eq!(divisor, 256);
            assert_eq!((multipliers[0], multipliers[widths.len() - 1]), (0.5, 4.0));
            let heads: Vec<usize> = config.layers().iter().map(|layer| layer.q_heads).collect();
            let found = head_scaling(&heads, config.model_dim(), config.head_dim(), 4);
            assert_eq!(found, Some(json!([0.5, 1.0])));
        }
        assert_eq!(ffn_scaling(&[96, 160], 64), (vec![1.5, 2.5], 32));
        assert_eq!(ffn_scaling(&[7, 9], 64).1, 1);
        assert_eq!(head_scaling(&[8, 8, 8], 512, 32, 2), Some(json!(0.5)));
        assert_eq!(head_scaling(&[4, 8, 6], 256, 32, 2), None);
    }

    #[test]
    fn group_size_is_equal_in_all_layers_or_absent() {
        assert_eq!(groups(&[12, 16], &[3, 4]), Some(4));
        assert_eq!(groups(&[12, 16], &[3, 8]), None);
        assert_eq!(groups(&[12], &[5]), None);
        assert_eq!(groups(&[12], &[0]), None);
        assert_eq!(groups(&[], &[]), None);
    }
}
