//! AWQ (arXiv 2306.00978) for OpenELM: input channels with large activations are scaled up before
//! rounding, and the part before them is scaled down, so that the unquantised layer is the same.
//!
//! | scaled down | scaled up |
//! |---|---|
//! | `attn_norm` | `attn.qkv_proj` |
//! | the values' rows of `attn.qkv_proj` | `attn.out_proj`; query heads of a group share a scale |
//! | `ffn_norm` | `ffn.proj_1` |
//! | the second half of `ffn.proj_1` | `ffn.proj_2`, with a gated unit only |
//!
//! The final norm is before the tied embedding, whose scale would change the residual stream: that
//! matrix is only rounded with grids for its activations, as all others are.

use mlx_rs::{
    Array,
    ops::{concatenate, matmul, maximum, ones, repeat_axis},
};

use super::{
    affine_grid::AffineGrid, hessian::Hessian, packed_codes::Codes, passes::Hidden, widths::round,
};
use crate::{
    config::{
        Config, Layer,
        tensor_names::{ATTN_NORM, FFN_NORM, OUT_PROJ, PROJ_1, PROJ_2, QKV_PROJ},
    },
    error::{Error, Result},
    mlx::{Dtype, Matrix, Quantization, QuantizedMatrix, evaluation},
    model::{PROJECTIONS, SingleLayer},
    parallel,
};

/// Number of exponents of the activations that are tried, from 0 to below 1.
const EXPONENTS: usize = 20;
/// Smallest scale before normalisation.
const SMALLEST: f32 = 1e-4;
/// Rows that one thread quantises at a time.
const ROWS: usize = 64;

/// The quantisation of a projection and the type of its scales.
pub(super) type QuantizationOf<'a> = dyn Fn(&str) -> Option<(Quantization, Dtype)> + 'a;

/// Scales the weights of `layer`, whose inputs are `hidden`. Returns the changed norms in their
/// stored type, by their names within the layer.
///
/// # Errors
/// [`Error::Mlx`].
pub(super) fn scale(
    layer: &mut SingleLayer,
    config: &Config,
    sizes: &Layer,
    hidden: &Hidden,
    quantization: &QuantizationOf<'_>,
) -> Result<Vec<(String, Array)>> {
    let mut norms = Vec::new();
    for (name, before) in [
        (QKV_PROJ, ATTN_NORM),
        (OUT_PROJ, QKV_PROJ),
        (PROJ_1, FFN_NORM),
        (PROJ_2, PROJ_1),
    ] {
        let Some((packing, dtype)) = quantization(name) else {
            continue;
        };
        if name == PROJ_2 && !config.ffn_with_glu() {
            continue;
        }
        let inputs = hidden.map(|x| layer.input_of(name, x))?;
        let weight = matrix_of(layer, name)?;
        let heads = (name == OUT_PROJ).then_some(sizes);
        let scales = best_scales(&inputs, &weight, heads, config.head_dim(), packing, dtype)?;
        let scales = match name {
            QKV_PROJ | PROJ_1 => {
                let (norm, scales) = scale_norm(layer, before, &scales, dtype)?;
                norms.push((before.to_owned(), norm));
                scales
            }
            _ => {
                let previous = matrix_of(layer, before)?;
                let rows = previous.dim(0);
                let last = match heads {
                    // One scale for all query heads of a value head.
                    Some(sizes) => per_value_head(&scales, sizes, config.head_dim())?,
                    None => scales.clone(),
                };
                let first = ones::<f32>(&[rows - last.dim(0)])?;
                let divisor = concatenate(&[first, last], 0)?.expand_dims(-1)?;
                set(layer, before, previous.divide(divisor)?)?;
                scales
            }
        };
        set(layer, name, weight.multiply(scales)?)?;
    }
    Ok(norms)
}

/// Quantises `weight` f32 `[rows, width]` to the nearest numbers of grids for inputs with the mean
/// `squares` `[width]`: each column counts by the square of its input.
pub(super) fn round_for(
    weight: &Array,
    squares: &Array,
    quantization: Quantization,
    dtype: Dtype,
) -> Result<QuantizedMatrix> {
    let (rows, width) = (weight.dim(0) as usize, weight.dim(1) as usize);
    let size = quantization.group_size();
    let grid = AffineGrid::new(quantization, dtype);
    let numbers = weight.contiguous()?.to_vec_exact::<f32>()?;
    let weights = squares.contiguous()?.to_vec_exact::<f32>()?;
    let chunks: Vec<&[f32]> = numbers.chunks(ROWS * width).collect();
    let done = parallel::map(&chunks, |chunk| {
        let mut codes = Codes::new(chunk.len() / width, width, size);
        for (index, values) in chunk.chunks_exact(size).enumerate() {
            let first = index * size % width;
            let group = grid.fit(values, &weights[first..first + size]);
            let out = &mut codes.codes[index * size..(index + 1) * size];
            for (code, &value) in out.iter_mut().zip(values) {
                *code = grid.nearest(group, value) as u8;
            }
            codes.scales[index] = group.scale;
            codes.biases[index] = group.bias;
        }
        Ok(codes)
    })?;
    let mut all = Codes {
        rows,
        width,
        codes: Vec::with_capacity(rows * width),
        scales: Vec::new(),
        biases: Vec::new(),
    };
    for codes in done {
        all.codes.extend(codes.codes);
        all.scales.extend(codes.scales);
        all.biases.extend(codes.biases);
    }
    all.pack(quantization, dtype)
}

/// The scales `[width]` with the smallest error of the output: powers of the mean magnitudes of the
/// `inputs`, normalised to a geometric middle of 1.
fn best_scales(
    inputs: &[Array],
    weight: &Array,
    heads: Option<&Layer>,
    head_dim: usize,
    quantization: Quantization,
    dtype: Dtype,
) -> Result<Array> {
    let mut hessian = Hessian::new(weight.dim(1) as usize)?;
    let mut sum = Array::from_f32(0.0);
    for x in inputs {
        hessian.add(x)?;
        sum = sum.add(x.abs()?.mean_axes(&[0, 1], false)?)?;
    }
    let mut magnitudes = sum.divide(Array::from_f32(inputs.len().max(1) as f32))?;
    if let Some(sizes) = heads {
        let shared = per_value_head(&magnitudes, sizes, head_dim)?;
        let group = (sizes.q_heads / sizes.kv_heads) as i32;
        let shared = shared.reshape(&[sizes.kv_heads as i32, 1, head_dim as i32])?;
        magnitudes = repeat_axis::<f32>(shared, group, 1)?.reshape(&[-1])?;
    }
    let mut best = (f32::INFINITY, ones::<f32>(&[weight.dim(1)])?);
    for step in 0..EXPONENTS {
        let exponent = Array::from_f32(step as f32 / EXPONENTS as f32);
        let scales = maximum(magnitudes.power(exponent)?, Array::from_f32(SMALLEST))?;
        let middle = scales.max(None)?.multiply(scales.min(None)?)?.sqrt()?;
        let scales = scales.divide(middle)?;
        let rounded = round(&weight.multiply(&scales)?, quantization, dtype)?.divide(&scales)?;
        let change = rounded.subtract(weight)?;
        let error = matmul(&change, hessian.sum())?
            .multiply(change)?
            .sum(None)?;
        evaluation::complete([&error, &scales])?;
        let error = error.try_item_exact::<f32>()?;
        if error < best.0 {
            best = (error, scales);
        }
    }
    Ok(best.1)
}

/// The mean of `values` `[q_heads · head_dim]` over the query heads of each value head:
/// `[kv_heads · head_dim]`.
fn per_value_head(values: &Array, sizes: &Layer, head_dim: usize) -> Result<Array> {
    let [kv_heads, head_dim] = [sizes.kv_heads as i32, head_dim as i32];
    let values = values.reshape(&[kv_heads, -1, head_dim])?;
    Ok(values.mean_axis(1, false)?.reshape(&[-1])?)
}

/// Divides the norm `name` by `scales`. Returns it in its stored type, and the scales with its
/// rounding.
fn scale_norm(
    layer: &mut SingleLayer,
    name: &str,
    scales: &Array,
    dtype: Dtype,
) -> Result<(Array, Array)> {
    let mut result = Err(Error::option(
        "norm",
        format!("a layer has no norm `{name}`"),
    ));
    layer.visit_norms(&mut |found, norm| {
        if found != name {
            return Ok(false);
        }
        let stored = norm.divide(scales)?.as_dtype(dtype.mlx())?;
        let rounded = stored.as_dtype(mlx_rs::Dtype::Float32)?;
        // A norm of zero has no output to scale.
        let is_zero = rounded.eq(Array::from_f32(0.0))?;
        let exact = norm.divide(&rounded)?;
        let exact = mlx_rs::ops::select(&is_zero, scales, exact)?;
        evaluation::complete([&stored, &exact, &rounded])?;
        *norm = rounded;
        result = Ok((stored, exact));
        Ok(true)
    })?;
    result
}

fn matrix_of(layer: &mut SingleLayer, name: &str) -> Result<Array> {
    let matrices = layer.matrices()?;
    let place = PROJECTIONS.iter().position(|found| *found == name);
    match place.and_then(|place| matrices.get(place)) {
        Some(matrix) => matrix.float32(),
        None => Err(Error::option(
            "projection",
            format!("a layer has no projection `{name}`"),
        )),
    }
}

fn set(layer: &mut SingleLayer, name: &str, weight: Array) -> Result<()> {
    evaluation::complete([&weight])?;
    layer.set_matrix(name, &Matrix::Dense(weight))
}
