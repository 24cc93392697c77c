//! Verification of a result against its source: every tensor, and the predictions of both models.
//!
//! Both are read again from their files, layer by layer, as they are stored, and run side by side
//! with activations in f32. This needs the memory of one layer, or of the embedding, of both.

use std::{collections::HashMap, path::Path, time::Instant};

use mlx_rs::Array;

use super::{
    compare_logits::compare_logits,
    event::ConvertEvent,
    options::ConvertOptions,
    report::{TensorChecks, TensorError, Verification},
    staging::Staging,
    stored_numbers::slice,
    tensor_difference::Bound,
    tensor_pair::TensorPair,
    tokenizer_files::TokenizerFiles,
};
use crate::{
    cancel::CancelHandle,
    config::{
        Config,
        tensor_names::{EMBEDDING, FINAL_NORM, HEAD, layer, weight},
    },
    convert::source::SourceModel,
    error::{Error, Result},
    gate::pause_point,
    mlx::{Dtype, Matrix, runtime},
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
    let predictions = compare_logits(slice(&source)?, slice(&result)?, config.vocab_size());
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
            let [source, result] = self.read_compared(weight(EMBEDDING))?;
            [
                LayerByLayerForward::new(config.clone(), ids, &source)?,
                LayerByLayerForward::new(config.clone(), ids, &result)?,
            ]
        };
        self.advance()?;
        for index in 0..config.num_transformer_layers() {
            let prefix = layer(index, "");
            let names = config.tensors().into_iter().map(|(name, _)| name);
            let names: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
            for (model, mut weights) in models.iter_mut().zip(self.weights(names)?) {
                model.layer(index, &mut weights)?;
            }
            self.advance()?;
        }
        let [source_norm, result_norm] = self.read_compared(weight(FINAL_NORM))?;
        let head = if config.share_input_output_layers() {
            weight(EMBEDDING)
        } else {
            self.read_compared(weight(HEAD))?;
            weight(HEAD)
        };
        let logits = |model: &LayerByLayerForward, norm: &Matrix, mut file: SourceModel| {
            let head = file.stored(&head)?.for_float32()?;
            let logits = model.logits(norm.float32()?, head)?;
            logits.eval()?;
            Ok::<_, Error>(logits)
        };
        let ([source, result], [source_file, result_file]) = (&models, reopen()?);
        let logits = [
            logits(source, &source_norm, source_file)?,
            logits(result, &result_norm, result_file)?,
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

    /// Both models' weights with `names`, compared.
    fn weights(&mut self, names: Vec<String>) -> Result<[Weights; 2]> {
        let pairs = names.into_iter().map(|name| self.read(name));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let mut matrices = [Vec::new(), Vec::new()];
        let mut tensors = [HashMap::new(), HashMap::new()];
        for pair in pairs {
            let name = pair.name.clone();
            for (model, tensor) in self.compared(pair)?.into_iter().enumerate() {
                if tensor.is_matrix() {
                    let stem = name.strip_suffix(".weight").unwrap_or(&name);
                    matrices[model].push((stem.to_owned(), tensor.for_float32()?));
                } else {
                    tensors[model].insert(name.clone(), tensor.float32()?);
                }
            }
        }
        let [source, result] = matrices;
        let [source_tensors, result_tensors] = tensors;
        Ok([
            Weights::as_stored(source, source_tensors),
            Weights::as_stored(result, result_tensors),
        ])
    }

    fn read_compared(&mut self, name: String) -> Result<[Matrix; 2]> {
        let pair = self.read(name)?;
        self.compared(pair)
    }

    fn read(&mut self, name: String) -> Result<TensorPair> {
        TensorPair::read(name, &mut self.source, &mut self.result, self.dtype)
    }

    /// The tensors of a pair, compared.
    fn compared(&mut self, pair: TensorPair) -> Result<[Matrix; 2]> {
        let difference = pair
            .compare()?
            .map_err(|problem| failed(self.target, format!("tensor `{}`: {problem}", pair.name)))?;
        match pair.bound {
            _ if difference.max == 0.0 => self.checks.identical += 1,
            Bound::Finite => self.checks.quantized += 1,
            _ => self.checks.rounded += 1,
        }
        if difference.max > 0.0 {
            self.errors.push(TensorError {
                name: pair.name,
                relative_error: difference.relative_error(),
                max_error: f64::from(difference.max),
            });
        }
        self.done += 1;
        Ok([pair.source, pair.result])
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

fn failed(target: &Path, problem: impl ToString) -> Error {
    Error::Verification {
        path: target.to_path_buf(),
        problem: problem.to_string(),
    }
}
