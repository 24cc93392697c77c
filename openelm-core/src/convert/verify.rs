//! Compares a result with its source: every tensor, and what both models predict.
//!
//! Both are read again from their files, a layer at a time, and run in f32 side by side, so that a
//! model of any size is compared in the memory of one layer, or of the embedding, twice, and of a
//! matrix that is packed again.

use std::{collections::HashMap, path::Path, time::Instant};

use mlx_rs::{Array, transforms::async_eval};

use super::{
    compare_logits::{Predictions, compare_logits},
    convert::ConvertEvent,
    options::ConvertOptions,
    report::{TensorChecks, TensorError, Verification},
    staging::Staging,
    tokenizer_files::TokenizerFiles,
};
use crate::{
    cancel::CancelHandle,
    config::Config,
    convert::source::{Precision, SourceModel},
    error::{Error, Result},
    formats::gguf,
    mlx::{Dtype, QuantizedMatrix},
    model::LayerByLayerForward,
    weights::Weights,
};

const EMBEDDING: &str = "transformer.token_embeddings.weight";
const HEAD: &str = "lm_head.weight";
/// Positions to compare at.
const TOKENS: usize = 64;
/// Tensors that the report names.
const WORST: usize = 5;

/// Compares what was written with its source.
pub(super) fn verify(
    source_path: &Path,
    staging: &Staging,
    tokenizer: &TokenizerFiles,
    options: &ConvertOptions,
    cancel: &CancelHandle,
    progress: &mut dyn FnMut(ConvertEvent<'_>),
) -> Result<Verification> {
    let started = Instant::now();
    let (target, written) = (staging.target(), staging.written());
    let source = SourceModel::open(source_path, options)?;
    let plain = ConvertOptions::default();
    let result = SourceModel::open(&written, &plain)
        .map_err(|error| failed(target, staging.of_target(error)))?;
    if source.config.tensors() != result.config.tensors() {
        return Err(failed(target, "another architecture was written"));
    }
    let most = TOKENS.min(source.config.max_context_length());
    let sample = tokenizer.sample(most, source.config.vocab_size())?;
    let text = sample.is_some();
    let ids = sample.unwrap_or_else(|| random_ids(&source.config, most));

    let total = source.config.tensors().len() as u64;
    let mut comparison = Comparison {
        source,
        result,
        target,
        dtype: options.dtype,
        done: 0,
        checks: TensorChecks::default(),
        errors: Vec::new(),
    };
    let mut advance = |comparison: &Comparison| {
        progress(ConvertEvent::Verifying {
            done: comparison.done,
            total,
        });
        match cancel.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    };
    advance(&comparison)?;
    let config = comparison.source.config.clone();
    let mut models = [
        LayerByLayerForward::new(config.clone(), &ids)?,
        LayerByLayerForward::new(config.clone(), &ids)?,
    ];
    let embeddings = comparison.both(EMBEDDING)?;
    for (model, weight) in models.iter_mut().zip(&embeddings) {
        model.embed(weight)?;
    }
    drop(embeddings);
    advance(&comparison)?;
    for index in 0..config.num_transformer_layers() {
        let prefix = format!("transformer.layers.{index}.");
        let names = config.tensors().into_iter().map(|(name, _)| name);
        let mut weights = [HashMap::new(), HashMap::new()];
        for name in names.filter(|name| name.starts_with(&prefix)) {
            let both = comparison.both(&name)?;
            for (map, array) in weights.iter_mut().zip(both) {
                map.insert(name.clone(), array);
            }
        }
        for (model, map) in models.iter_mut().zip(weights) {
            model.layer(index, &mut Weights::from_tensors(map))?;
        }
        advance(&comparison)?;
    }
    let norms = comparison.both("transformer.norm.weight")?;
    let head = match config.share_input_output_layers() {
        // Compared above; read once more, rather than kept all the while.
        true => EMBEDDING,
        false => {
            comparison.both(HEAD)?;
            HEAD
        }
    };
    let mut logits = Vec::new();
    let again = [
        SourceModel::open(source_path, options)?,
        SourceModel::open(&written, &plain)?,
    ];
    for ((model, norm), mut file) in models.iter_mut().zip(norms).zip(again) {
        let head = file.dense(head, Dtype::Float32)?;
        let last = model.logits(norm, &head)?;
        last.eval()?;
        logits.push(last);
    }
    advance(&comparison)?;
    let predictions = match logits.as_slice() {
        [source, result] => compare_logits(floats(source)?, floats(result)?, config.vocab_size()),
        _ => Predictions::default(),
    };
    if !(predictions.mean_kl.is_finite() && predictions.max_logit_difference.is_finite()) {
        return Err(failed(target, "its predictions are not finite"));
    }
    let Comparison {
        checks, mut errors, ..
    } = comparison;
    errors.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
    errors.truncate(WORST);
    Ok(Verification {
        tensors: checks,
        tokens: ids.len(),
        text,
        mean_kl: predictions.mean_kl,
        max_kl: predictions.max_kl,
        top1_agreement: predictions.top1_agreement,
        max_logit_difference: predictions.max_logit_difference,
        worst: errors,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Comparison<'t> {
    source: SourceModel,
    result: SourceModel,
    target: &'t Path,
    /// The type that was asked for.
    dtype: Option<Dtype>,
    done: u64,
    checks: TensorChecks,
    errors: Vec<TensorError>,
}

impl Comparison<'_> {
    /// A tensor of both models in f32, compared.
    fn both(&mut self, name: &str) -> Result<[Array; 2]> {
        let bound = Bound::of(self.source.precision(name), self.result.precision(name));
        let source = self.source.dense(name, Dtype::Float32)?;
        let result = self.result.dense(name, Dtype::Float32)?;
        async_eval([&source, &result])?;
        let again = self.packed_again(name, &source)?;
        let difference = Difference::between(floats(&source)?, floats(&result)?, bound);
        if bound == Bound::Finite {
            self.check_packing(name, &source, again, floats(&result)?)?;
        }
        if let Some((expected, found)) = difference.outside {
            let what = match bound {
                Bound::Exact => "expected".to_owned(),
                Bound::Rounded(dtype) => format!("expected, to one rounding to {dtype},"),
                Bound::Finite => "from".to_owned(),
            };
            let problem = format!("tensor `{name}`: {what} {expected:e}, found {found:e}");
            return Err(failed(self.target, problem));
        }
        match bound {
            _ if difference.max == 0.0 => self.checks.identical += 1,
            Bound::Finite => self.checks.quantized += 1,
            _ => self.checks.rounded += 1,
        }
        if difference.max > 0.0 {
            self.errors.push(TensorError {
                name: name.into(),
                relative_error: (difference.squares / difference.source_squares).sqrt(),
                max_error: f64::from(difference.max),
            });
        }
        self.done += 1;
        Ok([source, result])
    }

    /// The source's matrix packed as the result's, if that was packed anew; under way.
    fn packed_again(&self, name: &str, source: &Array) -> Result<Option<QuantizedMatrix>> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let Precision::Packed(packing, _) = self.result.precision(name) else {
            return Ok(None);
        };
        // Otherwise it is kept as it was packed, at most its scales cast.
        if self.source.packing(stem) == Some(packing) && !self.source.adapts(name) {
            return Ok(None);
        }
        let dtype = self.dtype.unwrap_or_else(|| self.source.dtype(name));
        let packed = QuantizedMatrix::quantize(&source.as_dtype(dtype.mlx())?, packing)?;
        async_eval([&packed.weight, &packed.scales])?;
        Ok(Some(packed))
    }

    /// That the result holds what the source's numbers are when they are packed, to the last bit:
    /// packing is repeatable.
    fn check_packing(
        &self,
        name: &str,
        source: &Array,
        again: Option<QuantizedMatrix>,
        result: &[f32],
    ) -> Result<()> {
        let difference = match (again, self.result.precision(name)) {
            (Some(packed), _) => {
                let expected = packed.expand(Dtype::Float32)?;
                Difference::between(floats(&expected)?, result, Bound::Exact)
            }
            (None, Precision::Blocks(kind)) => {
                let expected = gguf::rounded(kind, floats(source)?);
                let expected = expected.map_err(|problem| failed(self.target, problem))?;
                Difference::between(&expected, result, Bound::Exact)
            }
            (None, _) => return Ok(()),
        };
        let Some((expected, found)) = difference.outside else {
            return Ok(());
        };
        let problem =
            format!("tensor `{name}`: expected {expected:e} once packed, found {found:e}");
        Err(failed(self.target, problem))
    }
}

/// How close a number of the result has to be to the source's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Exact,
    Rounded(Dtype),
    Finite,
}

impl Bound {
    fn of(source: Precision, result: Precision) -> Self {
        match (source, result) {
            (one, other) if one == other && !matches!(one, Precision::Blocks(_)) => Self::Exact,
            (_, Precision::Float(Dtype::Float32)) => Self::Exact,
            (_, Precision::Float(dtype)) => Self::Rounded(dtype),
            _ => Self::Finite,
        }
    }

    fn holds(self, source: f32, result: f32) -> bool {
        // Half a unit in the last place, and of the smallest number.
        let (relative, absolute) = match self {
            Self::Exact => return source.to_bits() == result.to_bits(),
            Self::Finite => return result.is_finite() || !source.is_finite(),
            Self::Rounded(Dtype::Bfloat16) => (f32::EPSILON * 32_768.0, f32::MIN_POSITIVE),
            Self::Rounded(Dtype::Float16) => (f32::EPSILON * 4_096.0, 2.0_f32.powi(-25)),
            Self::Rounded(Dtype::Float32) => (f32::EPSILON / 2.0, f32::MIN_POSITIVE),
        };
        (result - source).abs() <= source.abs() * relative + absolute
            || source.to_bits() == result.to_bits()
            || (source.is_nan() && result.is_nan())
    }
}

/// How two tensors differ.
#[derive(Default)]
struct Difference {
    squares: f64,
    source_squares: f64,
    max: f32,
    /// The first pair beyond the bound.
    outside: Option<(f32, f32)>,
}

impl Difference {
    fn between(source: &[f32], result: &[f32], bound: Bound) -> Self {
        let mut difference = Self::default();
        // The common case, at the speed of memory.
        if source.len() == result.len() && bytes_equal(source, result) {
            return difference;
        }
        for (source, result) in source.chunks(1024).zip(result.chunks(1024)) {
            let (mut squares, mut source_squares, mut max) = (0.0f32, 0.0f32, 0.0f32);
            for (&a, &b) in source.iter().zip(result) {
                squares += (b - a) * (b - a);
                source_squares += a * a;
                max = max.max((b - a).abs());
            }
            difference.squares += f64::from(squares);
            difference.source_squares += f64::from(source_squares);
            difference.max = difference.max.max(max);
            let mut pairs = source.iter().zip(result);
            if difference.outside.is_none()
                && let Some((&a, &b)) = pairs.find(|(a, b)| !bound.holds(**a, **b))
            {
                difference.outside = Some((a, b));
            }
        }
        difference
    }
}

fn bytes_equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Ids below the vocabulary, the same each time: BOS, then by a linear congruential generator.
fn random_ids(config: &Config, count: usize) -> Vec<u32> {
    let mut state: u64 = 0x5DEE_CE66;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % config.vocab_size() as u64) as u32
    };
    std::iter::once(config.bos_token_id() as u32)
        .chain((1..count).map(next))
        .collect()
}

fn floats(array: &Array) -> Result<&[f32]> {
    array
        .try_as_slice::<f32>()
        .map_err(|error| Error::Checkpoint {
            path: "verification".into(),
            problem: error.to_string(),
        })
}

fn failed(target: &Path, problem: impl ToString) -> Error {
    Error::Verification {
        path: target.to_path_buf(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn accepts_one_rounding() {
        let bounds = [
            Bound::Rounded(Dtype::Bfloat16),
            Bound::Rounded(Dtype::Float16),
        ];
        let mut x = 1e-6f32;
        while x < 6e4 {
            let rounded = [bf16::from_f32(x).to_f32(), f16::from_f32(x).to_f32()];
            for (bound, rounded) in bounds.into_iter().zip(rounded) {
                assert!(bound.holds(x, rounded), "{bound:?} {x} {rounded}");
                assert!(bound.holds(-x, -rounded), "{bound:?} {x} {rounded}");
            }
            // Two units away is more than a rounding.
            let bits = bf16::from_f32(x).to_bits();
            assert!(
                !bounds[0].holds(x, bf16::from_bits(bits + 2).to_f32()),
                "{x}"
            );
            x *= 1.37;
        }
        assert!(!bounds[1].holds(1e5, f32::INFINITY));
        assert!(Bound::Exact.holds(0.0, 0.0) && !Bound::Exact.holds(0.0, -0.0));
        assert!(!Bound::Finite.holds(1.0, f32::NAN));
    }

    #[test]
    fn differences_are_summed() {
        let source: Vec<f32> = vec![2.0; 3000];
        let mut result = source.clone();
        result[2999] = 5.0;
        let difference = Difference::between(&source, &result, Bound::Exact);
        assert_eq!(difference.squares, 9.0);
        assert_eq!(
            difference.source_squares,
            12_000.0 - 4.0 * 2048.0 + 4.0 * 2048.0
        );
        assert_eq!(
            (difference.max, difference.outside),
            (3.0, Some((2.0, 5.0)))
        );
        let same = Difference::between(&source, &source, Bound::Exact);
        assert_eq!((same.max, same.outside), (0.0, None));
    }
}
