//! Verification of a result against its source: every tensor, and the predictions of both models.
//!
//! Both are read again from their files, layer by layer, and run in f32 side by side. This needs
//! the memory of one layer, or of the embedding, twice, and of one matrix that is quantised again.

use std::{collections::HashMap, path::Path, time::Instant};

use mlx_rs::{Array, transforms::async_eval};

use super::{
    compare_logits::compare_logits,
    event::ConvertEvent,
    options::ConvertOptions,
    report::{TensorChecks, TensorError, Verification},
    staging::Staging,
    tensor_difference::{Bound, Difference},
    tokenizer_files::TokenizerFiles,
};
use crate::{
    cancel::CancelHandle,
    config::{
        Config,
        tensor_names::{EMBEDDING, FINAL_NORM, HEAD, layer, weight},
    },
    convert::source::{Precision, SourceModel},
    error::{Error, Result},
    formats::gguf,
    gate::pause_point,
    mlx::{Dtype, QuantizedMatrix, runtime},
    model::LayerByLayerForward,
    weights::Weights,
};

/// Number of positions to compare.
const TOKENS: usize = 64;
/// Number of tensors in the report.
const WORST: usize = 5;

/// Compares the written model with its source.
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
    // CoreNet's files do not state an architecture.
    let architecture = options.format.has_corenet_names();
    let plain = ConvertOptions {
        architecture: architecture.then(|| source.config.clone()),
        ..ConvertOptions::default()
    };
    let result = SourceModel::open(&written, &plain)
        .map_err(|error| failed(target, staging.of_target(error)))?;
    if source.config.tensors() != result.config.tensors() {
        return Err(failed(target, "the written architecture differs"));
    }
    let config = source.config.clone();
    let most = TOKENS.min(config.max_context_length());
    let sample = tokenizer.sample(most, config.vocab_size())?;
    let text = sample.is_some();
    let ids = sample.unwrap_or_else(|| random_ids(&config, most));

    let mut comparison = Comparison {
        source,
        result,
        target,
        dtype: options.dtype,
        total: config.tensors().len() as u64,
        done: 0,
        checks: TensorChecks::default(),
        errors: Vec::new(),
        cancel,
        progress,
    };
    let reopen = || -> Result<[SourceModel; 2]> {
        Ok([
            SourceModel::open(source_path, options)?,
            SourceModel::open(&written, &plain)?,
        ])
    };
    let ([source, result], non_finite) = comparison.logits(&config, &ids, &reopen)?;
    let predictions = compare_logits(floats(&source)?, floats(&result)?, config.vocab_size());
    let are_finite =
        predictions.mean_kl.is_finite() && predictions.max_logit_difference.is_finite();
    if non_finite.is_some() || !are_finite {
        let first = non_finite.unwrap_or_else(|| "the final norm or the head".into());
        let problem = format!("its predictions are not finite: {first} computes NaN or infinity");
        return Err(failed(target, problem));
    }
    let (checks, worst) = (comparison.checks, comparison.worst());
    Ok(Verification {
        tensors: checks,
        tokens: ids.len(),
        text,
        mean_kl: predictions.mean_kl,
        max_kl: predictions.max_kl,
        top1_agreement: predictions.top1_agreement,
        max_logit_difference: predictions.max_logit_difference,
        worst,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Comparison<'t> {
    source: SourceModel,
    result: SourceModel,
    target: &'t Path,
    /// The requested type.
    dtype: Option<Dtype>,
    /// Number of tensors to compare, and compared so far.
    total: u64,
    done: u64,
    checks: TensorChecks,
    errors: Vec<TensorError>,
    cancel: &'t CancelHandle,
    progress: &'t mut dyn FnMut(ConvertEvent<'_>),
}

impl Comparison<'_> {
    /// Compares all tensors and returns both models' next-token logits f32 `[1, L, V]` for `ids`,
    /// and the first part of a network whose output is not finite. A tied head is read again from
    /// the files of `reopen`, to save memory.
    fn logits(
        &mut self,
        config: &Config,
        ids: &[u32],
        reopen: &dyn Fn() -> Result<[SourceModel; 2]>,
    ) -> Result<([Array; 2], Option<String>)> {
        self.advance()?;
        let mut models = {
            let [source, result] = self.both(&weight(EMBEDDING))?;
            [
                LayerByLayerForward::new(config.clone(), ids, &source)?,
                LayerByLayerForward::new(config.clone(), ids, &result)?,
            ]
        };
        self.advance()?;
        for index in 0..config.num_transformer_layers() {
            let prefix = layer(index, "");
            let mut weights = [HashMap::new(), HashMap::new()];
            for (name, _) in config.tensors() {
                if name.starts_with(&prefix) {
                    for (map, array) in weights.iter_mut().zip(self.both(&name)?) {
                        map.insert(name.clone(), array);
                    }
                }
            }
            for (model, map) in models.iter_mut().zip(weights) {
                model.layer(index, &mut Weights::from_tensors(map))?;
            }
            self.advance()?;
        }
        let [source_norm, result_norm] = self.both(&weight(FINAL_NORM))?;
        let head = if config.share_input_output_layers() {
            weight(EMBEDDING)
        } else {
            self.both(&weight(HEAD))?;
            weight(HEAD)
        };
        let logits = |model: &LayerByLayerForward, norm, mut file: SourceModel| {
            let logits = model.logits(norm, &file.dense(&head, Dtype::Float32)?)?;
            logits.eval()?;
            Ok::<_, Error>(logits)
        };
        let ([source, result], [source_file, result_file]) = (&models, reopen()?);
        let logits = [
            logits(source, source_norm, source_file)?,
            logits(result, result_norm, result_file)?,
        ];
        self.advance()?;
        let non_finite = models.iter().find_map(LayerByLayerForward::non_finite);
        Ok((logits, non_finite.map(str::to_owned)))
    }

    /// Reports the progress.
    fn advance(&mut self) -> Result<()> {
        (self.progress)(ConvertEvent::Verifying {
            done: self.done,
            total: self.total,
        });
        pause_point(self.cancel, runtime::synchronize)?;
        self.cancel.check()
    }

    /// The tensors with the largest relative errors.
    fn worst(mut self) -> Vec<TensorError> {
        self.errors
            .sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
        self.errors.truncate(WORST);
        self.errors
    }

    /// A tensor of both models in f32, compared.
    fn both(&mut self, name: &str) -> Result<[Array; 2]> {
        let bound = Bound::of(self.source.precision(name), self.result.precision(name));
        let source = self.source.dense(name, Dtype::Float32)?;
        let result = self.result.dense(name, Dtype::Float32)?;
        if source.shape() != result.shape() {
            let (expected, found) = (source.shape(), result.shape());
            let problem = format!("tensor `{name}`: expected shape {expected:?}, found {found:?}");
            return Err(failed(self.target, problem));
        }
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
                relative_error: difference.relative_error(),
                max_error: f64::from(difference.max),
            });
        }
        self.done += 1;
        Ok([source, result])
    }

    /// The source's matrix with the result's quantisation, if it was quantised again; lazy.
    fn packed_again(&self, name: &str, source: &Array) -> Result<Option<QuantizedMatrix>> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let Precision::Packed(packing, _) = self.result.precision(name) else {
            return Ok(None);
        };
        // Otherwise the quantised numbers are kept, and the scales may be cast.
        if self.source.packing(stem) == Some(packing) && !self.source.adapts(name) {
            return Ok(None);
        }
        let dtype = self.dtype.unwrap_or_else(|| self.source.dtype(name));
        let packed = QuantizedMatrix::quantize(&source.as_dtype(dtype.mlx())?, packing)?;
        async_eval([&packed.weight, &packed.scales])?;
        Ok(Some(packed))
    }

    /// Checks that the result equals the quantised source bit for bit: quantisation is
    /// deterministic.
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
            format!("tensor `{name}`: expected {expected:e} after quantisation, found {found:e}");
        Err(failed(self.target, problem))
    }
}

/// Deterministic ids below the vocabulary: BOS, then a linear congruential generator.
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
        .map_err(|error| Error::checkpoint("verification", error.to_string()))
}

fn failed(target: &Path, problem: impl ToString) -> Error {
    Error::Verification {
        path: target.to_path_buf(),
        problem: problem.to_string(),
    }
}
