//! The quantisation of each matrix: the same for all, or chosen by the sensitivity of the model.
//!
//! The sensitivity of a matrix is the divergence of the model on calibration text if only this
//! matrix is rounded, measured at two widths. For other widths it is scaled by the squared error of
//! the matrix's output, `Σ h_k Δ_k²` with the mean squares `h` of its inputs: for small errors the
//! divergence is quadratic in them.

use std::collections::BTreeMap;

use mlx_rs::{Array, Dtype as MlxDtype};
use serde::{Deserialize, Serialize};

use super::{
    bit_allocation::{Candidate, allocate},
    model_reader::ModelReader,
    options::{QuantizeOptions, WIDTHS},
    passes::{Hidden, Place, Variant, variants},
    quality::compare,
};
use crate::{
    cancel::CancelHandle,
    config::tensor_names::{EMBEDDING, HEAD, layer as layer_name},
    error::{Error, Result},
    mlx::{Dtype, Matrix, Quantization, QuantizationMap, QuantizedMatrix},
    model::PROJECTIONS,
};

/// Sequences on which the sensitivity is measured.
const SEQUENCES: usize = 8;

/// A matrix of the model.
#[derive(Debug, Clone)]
pub(super) struct MatrixShape {
    /// Its tensor's name without `.weight`.
    pub(super) stem: String,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// The type of its scales and biases.
    pub(super) dtype: Dtype,
}

impl MatrixShape {
    /// Size with `quantization`, in bytes.
    fn bytes(&self, quantization: Option<Quantization>) -> u64 {
        let numbers = (self.rows * self.width) as u64;
        match quantization {
            None => numbers * self.dtype.size() as u64,
            Some(quantization) => {
                let groups = numbers / quantization.group_size() as u64;
                numbers * quantization.bits() as u64 / 8 + 2 * groups * self.dtype.size() as u64
            }
        }
    }
}

/// The matrices of the model that `reader` reads, in the order of the computation.
pub(super) fn matrices(reader: &ModelReader) -> Result<Vec<MatrixShape>> {
    let dtypes = reader.dtypes()?;
    let tensors = reader.config().tensors().into_iter();
    let matrices = tensors.filter_map(|(name, shape)| match *shape {
        [rows, width] => {
            let stem = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
            let dtype = dtypes.get(&stem).copied().unwrap_or(Dtype::Float32);
            Some(MatrixShape {
                stem,
                rows,
                width,
                dtype,
            })
        }
        _ => None,
    });
    Ok(matrices.collect())
}

/// The divergence if only one matrix is rounded, per width.
pub(super) type Sensitivities = BTreeMap<String, Vec<Sensitivity>>;

/// The divergence of the model if one matrix is rounded to `bits`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Bits per number.
    pub bits: usize,
    /// Divergence in nats per token; measured, or scaled from a measured one.
    pub kl: f64,
}

/// The quantisation of each matrix with the same `bits`.
///
/// # Errors
/// [`Error::Option`] if no matrix can be quantised.
pub(super) fn uniform(
    options: &QuantizeOptions,
    matrices: &[MatrixShape],
    bits: usize,
) -> Result<QuantizationMap> {
    let quantization = options.quantization(bits)?;
    map(options, matrices, quantization, |_| quantization)
}

/// The quantisation of each matrix for `target` bits per weight.
///
/// # Errors
/// [`Error::Option`] if no mixture of widths has at most `target` bits per weight, or none needs as
/// many.
pub(super) fn mixed(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
    target: f64,
    sensitivities: &Sensitivities,
) -> Result<QuantizationMap> {
    check_target(options, reader, matrices, target)?;
    let parameters = reader.config().parameter_count();
    let quantized = quantized(options, matrices)?;
    let budget = (target * parameters as f64 / 8.0) as u64;
    let budget = budget.saturating_sub(fixed_bytes(options, reader, matrices)?);
    let candidates: Vec<Vec<Candidate>> = quantized
        .iter()
        .map(|matrix| {
            let of_matrix = sensitivities.get(&matrix.stem).into_iter().flatten();
            let of_matrix = of_matrix.map(|sensitivity| {
                let quantization = options.quantization(sensitivity.bits)?;
                Ok(Candidate {
                    bits: sensitivity.bits,
                    bytes: matrix.bytes(Some(quantization)),
                    kl: sensitivity.kl,
                })
            });
            of_matrix.collect::<Result<_>>()
        })
        .collect::<Result<_>>()?;
    let Some(chosen) = allocate(&candidates, budget) else {
        return Err(Error::option("target_bits", "no widths fit"));
    };
    let bits: BTreeMap<&str, usize> = quantized
        .iter()
        .zip(candidates.iter().zip(chosen))
        .map(|(matrix, (candidates, choice))| (matrix.stem.as_str(), candidates[choice].bits))
        .collect();
    // The width of most numbers is the default.
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for matrix in &quantized {
        let bits = bits.get(matrix.stem.as_str()).copied().unwrap_or(WIDTHS[0]);
        *counts.entry(bits).or_default() += matrix.rows * matrix.width;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let default = options.quantization(most.map_or(WIDTHS[0], |(bits, _)| *bits))?;
    let of = |matrix: &MatrixShape| {
        let bits = bits.get(matrix.stem.as_str());
        bits.map_or(Ok(default), |&bits| options.quantization(bits))
    };
    let mut widths = QuantizationMap::uniform(default);
    for matrix in &quantized {
        widths.set(&matrix.stem, Some(of(matrix)?));
    }
    Ok(widths)
}

/// Refuses a number of bits per weight that no widths have.
pub(super) fn check_target(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
    target: f64,
) -> Result<()> {
    let [least, most] = [WIDTHS[0], WIDTHS[WIDTHS.len() - 1]];
    let bits = |bits: usize| -> Result<f64> {
        let widths = uniform(options, matrices, bits)?;
        bits_per_weight(options, reader, matrices, &widths)
    };
    let (least, most) = (bits(least)?, bits(most)?);
    if (least..=most).contains(&target) {
        return Ok(());
    }
    let problem = format!(
        "expected {least:.3} to {most:.3} bits per weight, with scales, for this model in groups \
         of {}, found {target}",
        options.group_size
    );
    Err(Error::option("target_bits", problem))
}

/// Bits per weight of the whole model with `widths`.
pub(super) fn bits_per_weight(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
    widths: &QuantizationMap,
) -> Result<f64> {
    let bytes = bytes(options, reader, matrices, widths)?;
    Ok(bytes as f64 * 8.0 / reader.config().parameter_count() as f64)
}

/// Size of the weights with `widths`, in bytes.
pub(super) fn bytes(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
    widths: &QuantizationMap,
) -> Result<u64> {
    let quantized = quantized(options, matrices)?;
    let quantized = quantized.iter().map(|m| m.bytes(widths.layer(&m.stem)));
    Ok(fixed_bytes(options, reader, matrices)? + quantized.sum::<u64>())
}

/// Measures the sensitivity of every matrix on `sequences`.
///
/// # Errors
/// As [`variants`].
pub(super) fn sensitivities(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
    sequences: &[Vec<u32>],
    target: f64,
    cancel: &CancelHandle,
    mut progress: impl FnMut(usize),
) -> Result<Sensitivities> {
    let sequences = &sequences[..SEQUENCES.min(sequences.len())];
    let measured = measured_widths(target);
    let quantized = quantized(options, matrices)?;
    let find = |stem: &str| quantized.iter().find(|matrix| matrix.stem == stem);
    let mut errors: Vec<(String, Vec<f64>)> = Vec::new();
    let mut of_matrix = |stem: &str, weight: &Array, squares: Option<&Array>| {
        let Some(matrix) = find(stem) else {
            return Ok(Vec::new());
        };
        let mut rounded = Vec::new();
        let mut found = Vec::new();
        for bits in WIDTHS {
            let new = round(weight, options.quantization(bits)?, matrix.dtype)?;
            found.push(squared_error(weight, &new, squares)?);
            if measured.contains(&bits) {
                rounded.push(new);
            }
        }
        errors.push((stem.to_owned(), found));
        Ok::<_, Error>(rounded)
    };
    let mut vary = |place: Place<'_>| -> Result<Vec<Variant>> {
        let mut found = Vec::new();
        match place {
            Place::Embedding(matrix) => {
                let rounded = of_matrix(EMBEDDING, matrix, None)?;
                found.extend(rounded.into_iter().map(Variant::Matrix));
            }
            Place::Head(matrix) => {
                let rounded = of_matrix(HEAD, matrix, None)?;
                found.extend(rounded.into_iter().map(Variant::Matrix));
            }
            Place::Layer(layer, index, hidden) => {
                let own = layer.clone().matrices()?;
                for (name, matrix) in PROJECTIONS.into_iter().zip(own) {
                    let squares = mean_squares(hidden, |x| layer.input_of(name, x))?;
                    let stem = layer_name(index, name);
                    for new in of_matrix(&stem, &matrix.float32()?, Some(&squares))? {
                        let mut layer = layer.clone();
                        layer.set_matrix(name, &Matrix::Dense(new))?;
                        found.push(Variant::Layer(Box::new(layer)));
                    }
                }
                progress(index);
            }
        }
        Ok(found)
    };
    let (own, outputs) = variants(reader, sequences, cancel, &mut vary)?;
    let mut outputs = outputs.into_iter();
    let mut sensitivities = Sensitivities::new();
    for (stem, errors) in errors {
        let mut kls = Vec::with_capacity(measured.len());
        for output in outputs.by_ref().take(measured.len()) {
            kls.push(compare(&own, &output, sequences, cancel)?.kl.max(0.0));
        }
        sensitivities.insert(stem, scaled(&measured, &kls, &errors));
    }
    Ok(sensitivities)
}

/// The two widths next to the average width of a model of `target` bits per weight.
fn measured_widths(target: f64) -> [usize; 2] {
    match target {
        _ if target < 4.0 => [2, 3],
        _ if target < 5.0 => [3, 4],
        _ => [4, 5],
    }
}

/// The divergence at every width, from those of the `measured` widths and the squared errors of
/// all: the nearest measured width's, scaled.
fn scaled(measured: &[usize; 2], kls: &[f64], errors: &[f64]) -> Vec<Sensitivity> {
    let error = |bits: usize| {
        let place = WIDTHS.iter().position(|&width| width == bits);
        place
            .and_then(|place| errors.get(place))
            .copied()
            .unwrap_or(0.0)
    };
    let of = |bits: usize| {
        let near = usize::from(bits >= measured[1]);
        let kl = kls.get(near).copied().unwrap_or(0.0);
        let base = error(measured[near]);
        let kl = if base > 0.0 {
            kl * error(bits) / base
        } else {
            kl
        };
        Sensitivity { bits, kl }
    };
    WIDTHS.map(of).to_vec()
}

/// The matrices that are quantised: those whose rows divide into groups.
///
/// # Errors
/// [`Error::Option`] if there are none.
fn quantized<'m>(
    options: &QuantizeOptions,
    matrices: &'m [MatrixShape],
) -> Result<Vec<&'m MatrixShape>> {
    let fits = |matrix: &&MatrixShape| matrix.width.is_multiple_of(options.group_size);
    let found: Vec<_> = matrices.iter().filter(fits).collect();
    if found.is_empty() {
        let problem = format!(
            "no matrix of this model has rows that divide into groups of {}",
            options.group_size
        );
        return Err(Error::option("group_size", problem));
    }
    Ok(found)
}

/// Size of the norms and of the matrices that are not quantised.
fn fixed_bytes(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
) -> Result<u64> {
    let dtypes = reader.dtypes()?;
    let tensors = reader.config().tensors();
    let norms = tensors.iter().filter(|(_, shape)| shape.len() != 2);
    let norms = norms.map(|(name, shape)| {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let dtype = dtypes.get(stem).copied().unwrap_or(Dtype::Float32);
        (shape.iter().product::<usize>() * dtype.size()) as u64
    });
    let others = matrices
        .iter()
        .filter(|m| !m.width.is_multiple_of(options.group_size));
    Ok(norms.sum::<u64>() + others.map(|m| m.bytes(None)).sum::<u64>())
}

fn map(
    options: &QuantizeOptions,
    matrices: &[MatrixShape],
    default: Quantization,
    of: impl Fn(&MatrixShape) -> Quantization,
) -> Result<QuantizationMap> {
    let mut widths = QuantizationMap::uniform(default);
    for matrix in quantized(options, matrices)? {
        widths.set(&matrix.stem, Some(of(matrix)));
    }
    Ok(widths)
}

/// `weight` f32, rounded as by `openelm convert -q`, f32.
pub(super) fn round(weight: &Array, quantization: Quantization, dtype: Dtype) -> Result<Array> {
    let stored = weight.as_dtype(dtype.mlx())?;
    QuantizedMatrix::quantize(&stored, quantization)?.expand(Dtype::Float32)
}

/// The mean squares f32 `[width]` of the inputs that `input` makes of `hidden`.
pub(super) fn mean_squares(
    hidden: &Hidden,
    input: impl Fn(&Array) -> Result<Array>,
) -> Result<Array> {
    let parts = hidden.map(|x| Ok(input(x)?.square()?.mean_axes(&[0, 1], false)?))?;
    let mut sum = Array::from_f32(0.0);
    for part in &parts {
        sum = sum.add(part)?;
    }
    Ok(sum.divide(Array::from_f32(parts.len().max(1) as f32))?)
}

fn squared_error(weight: &Array, new: &Array, squares: Option<&Array>) -> Result<f64> {
    let mut error = new.subtract(weight)?.square()?.mean_axis(0, false)?;
    if let Some(squares) = squares {
        error = error.multiply(squares)?;
    }
    let sum = error.sum(None)?.as_dtype(MlxDtype::Float32)?;
    Ok(f64::from(sum.try_item_exact::<f32>()?))
}
