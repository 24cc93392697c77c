//! Random weights, drawn as CoreNet initialises OpenELM (`general_gpt.py`, `reset_parameters`).

use std::collections::HashMap;

use mlx_rs::{
    Array, Dtype as MlxDtype,
    ops::{ones_dtype, zeros_dtype},
    random::{self, RandomState},
};

use super::weights::Weights;
use crate::{
    config::{
        Config,
        tensor_names::{OUT_PROJ, PROJ_2, WEIGHT, parse_layer},
    },
    error::Result,
    mlx::Dtype,
};

/// Draws the weights of `config`: projections from N(0, 1/in), embeddings from N(0, 1/D), the
/// last projections of the residual branches from N(0, 1/(2·N·D)) for N layers; norms are 1.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX runs out of memory.
pub fn random_weights(config: &Config, dtype: Dtype, seed: u64) -> Result<Weights> {
    let mut state = RandomState::with_seed(seed)?;
    let width = config.model_dim() as f32;
    let residual = (2.0 * config.num_transformer_layers() as f32 * width).powf(-0.5);
    let mut tensors = HashMap::new();
    for (name, shape) in config.tensors() {
        let dims: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
        let array = match dims.as_slice() {
            [_] => ones_dtype(&dims, dtype.mlx())?,
            [_, input] => {
                let part = name.strip_suffix(WEIGHT).and_then(parse_layer);
                let last = matches!(part, Some((_, OUT_PROJ | PROJ_2)));
                let deviation = if last {
                    residual
                } else {
                    (*input as f32).powf(-0.5)
                };
                draw(&dims, deviation, dtype, &mut state)?
            }
            _ => zeros_dtype(&dims, dtype.mlx())?,
        };
        array.eval()?;
        tensors.insert(name, array);
    }
    Ok(Weights::from_tensors(tensors))
}

fn draw(shape: &[i32], deviation: f32, dtype: Dtype, state: &mut RandomState) -> Result<Array> {
    let key = state.next_key()?;
    let array = random::normal::<f32>(shape, None, Some(deviation), &key)?;
    Ok(if dtype.mlx() == MlxDtype::Float32 {
        array
    } else {
        array.as_dtype(dtype.mlx())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn standard_deviations_match_corenet() {
        let settings = crate::config::LayerWiseConfig {
            num_transformer_layers: 2,
            vocab_size: 500,
            ..Preset::Size270M.settings()
        };
        let config = Config::layer_wise(settings).unwrap();
        let mut weights = random_weights(&config, Dtype::Float32, 1).unwrap();
        let expected = |name: &str| -> f64 {
            if name.ends_with("norm.weight") {
                0.0
            } else if name.ends_with("out_proj.weight") || name.ends_with("proj_2.weight") {
                0.013_975_4 // (2 layers · 2 · 1280)^-0.5
            } else {
                0.027_950_9 // 1280^-0.5
            }
        };
        for (name, shape) in config.tensors() {
            let array = weights.take(&name, &shape).unwrap();
            // Per row: MLX's sum over 13 million f32 numbers at once is off by a percent.
            let rows = array.square().unwrap().mean_axis(-1, false).unwrap();
            let rows = rows.to_vec_exact::<f32>().unwrap();
            let mean = rows.iter().map(|&x| f64::from(x)).sum::<f64>() / rows.len() as f64;
            let deviation = if shape.len() == 1 {
                mean - 1.0
            } else {
                mean.sqrt()
            };
            let expected = expected(&name);
            assert!(
                (deviation - expected).abs() <= 0.01 * expected,
                "{name}: {deviation}"
            );
        }
    }
}
