//! The entry: calibration, widths, quantisation, distillation, report, and the folder.

use std::{path::Path, time::Instant};

use mlx_rs::Array;
use serde_json::json;

use super::{
    distillation::Distillation,
    event::QuantizeEvent,
    layers::LayerQuantizer,
    measure::Measurement,
    model_reader::ModelReader,
    options::{Method, QuantizeOptions, Widths},
    passes::{Replacement, outputs},
    quality::Outputs,
    report::QuantizeReport,
    state::State,
    texts::Texts,
    widths::{self, MatrixShape, Sensitivities},
};
use crate::{
    cancel::CancelHandle,
    convert::{Conversion, ConvertOptions, LayerRule, Quantize, check_target_folder},
    data::Fingerprint,
    error::{Error, Result},
    files::check_inputs,
    mlx::{Dtype, QuantizationMap, recovery::recovering},
    tokenizer::Tokenizer,
    weights::Tensors,
};

/// The report in the folder of the result.
const REPORT: &str = "quantize-report.json";
/// The chosen widths in the progress of a run.
const SENSITIVITIES: &str = "sensitivities.json";

/// Quantises the unquantised model at `source`, a folder or file, to `target`, a new folder that
/// mlx-lm, mlx-swift-lm and this crate load. `cancel` ends the work from any thread; the same call
/// continues it, as after the death of the process, and writes the same files.
///
/// # Errors
/// [`Error::Option`] for options out of range, a text that is too short, a number of bits that
/// cannot be reached, or a quantised source; [`Error::Destination`] if the target exists, is inside
/// the source or contains an input, or if another process writes it; [`Error::NonFinite`] for
/// weights or activations that are not finite; [`Error::Diverged`] for a learning rate that is too
/// high; [`Error::Cancelled`]; the errors of the source's readers. After an error the target is
/// unchanged.
pub fn quantize(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &QuantizeOptions,
    cancel: &CancelHandle,
    mut progress: impl FnMut(QuantizeEvent),
) -> Result<QuantizeReport> {
    let (source, target) = (source.as_ref(), target.as_ref());
    recovering(|| {
        let started = Instant::now();
        options.check()?;
        check_inputs(target, inputs(options))?;
        check_target_folder(source, target, options.force)?;
        let reader = ModelReader::open(source)?;
        let matrices = widths::matrices(&reader)?;
        check_widths(options, &reader, &matrices)?;
        let tokenizer = reader.tokenizer(&options.tokenizer)?;
        let context = reader.config().max_context_length();
        let texts = Texts::read(options, &tokenizer, context, cancel)?;
        let state = State::open(target, &key(source, options, &reader, &tokenizer, &texts)?)?;
        let mut run = Run {
            source,
            target,
            options,
            reader,
            matrices,
            texts,
            state,
            cancel,
            progress: &mut progress,
        };
        let widths = run.widths()?;
        let learned = run.learn(&widths)?;
        let report = run.report(&widths, &learned, started)?;
        run.write(&widths, &learned, &report)?;
        run.state.remove()?;
        Ok(report)
    })
}

/// A quantisation whose inputs are checked.
struct Run<'a> {
    source: &'a Path,
    target: &'a Path,
    options: &'a QuantizeOptions,
    reader: ModelReader,
    matrices: Vec<MatrixShape>,
    texts: Texts,
    state: State,
    cancel: &'a CancelHandle,
    progress: &'a mut dyn FnMut(QuantizeEvent),
}

impl Run<'_> {
    /// The quantisation of each matrix, and the sensitivities by which it was chosen.
    fn widths(&mut self) -> Result<(QuantizationMap, Sensitivities)> {
        let target = match self.options.widths {
            Widths::Uniform(bits) => {
                let widths = widths::uniform(self.options, &self.matrices, bits)?;
                return Ok((widths, Sensitivities::new()));
            }
            Widths::Target(target) => target,
        };
        let saved = self.state.text(SENSITIVITIES)?;
        let saved = saved.and_then(|text| serde_json::from_str(&text).ok());
        let sensitivities = match saved {
            Some(found) => found,
            None => {
                let total = self.reader.config().num_transformer_layers();
                let found = widths::sensitivities(
                    self.options,
                    &self.reader,
                    &self.matrices,
                    &self.texts.calibration,
                    target,
                    self.cancel,
                    |layer| {
                        let done = layer + 1;
                        (self.progress)(QuantizeEvent::Sensitivity { done, total });
                    },
                )?;
                let text = serde_json::to_string(&found);
                let text = text.map_err(|error| Error::io(SENSITIVITIES)(error.into()))?;
                self.state.save_text(SENSITIVITIES, &text)?;
                found
            }
        };
        let (options, reader) = (self.options, &self.reader);
        let widths = widths::mixed(options, reader, &self.matrices, target, &sensitivities)?;
        Ok((widths, sensitivities))
    }

    /// Quantises all parts. Returns the scales and biases that replace theirs.
    fn learn(&mut self, (widths, _): &(QuantizationMap, Sensitivities)) -> Result<Tensors> {
        let distils = self.options.method == Method::Dwq;
        let teacher = match self.options.method {
            Method::Round => None,
            _ => Some(self.teacher()?),
        };
        LayerQuantizer {
            options: self.options,
            reader: &self.reader,
            matrices: &self.matrices,
            widths,
            state: &self.state,
            cancel: self.cancel,
            progress: &mut *self.progress,
        }
        .run(&self.texts.calibration, teacher.as_ref())?;
        match teacher.filter(|_| distils) {
            None => Ok(Tensors::new()),
            Some(teacher) => Distillation::new(
                self.options,
                &self.reader,
                &self.matrices,
                widths,
                &self.texts.calibration,
                &teacher,
                &self.state,
                self.cancel,
            )?
            .run(self.progress),
        }
    }

    /// The outputs of the unquantised model for the calibration text.
    fn teacher(&mut self) -> Result<Outputs> {
        let own: &Replacement<'_> = &|_, _| Ok(None);
        let total = self.reader.config().num_transformer_layers();
        let progress = &mut *self.progress;
        let sequences = &self.texts.calibration;
        let found = outputs(&self.reader, sequences, &[own], self.cancel, |layer| {
            let done = layer + 1;
            progress(QuantizeEvent::Calibrated { done, total });
        })?;
        let missing = || Error::option("data", "there is no text");
        found.into_iter().next().ok_or_else(missing)
    }

    fn report(
        &mut self,
        (widths, sensitivities): &(QuantizationMap, Sensitivities),
        learned: &Tensors,
        started: Instant,
    ) -> Result<QuantizeReport> {
        let (options, reader, matrices) = (self.options, &self.reader, &*self.matrices);
        let result = |name: &str, _: &Array| float32(&self.state, widths, learned, name);
        let total = reader.config().num_transformer_layers();
        let measured = Measurement {
            options,
            reader,
            matrices,
            widths,
            result: &result,
            sequences: &self.texts.held_out,
            cancel: self.cancel,
        };
        let progress = &mut *self.progress;
        let mut advance = |layer| {
            let done = layer + 1;
            progress(QuantizeEvent::Measured { done, total });
        };
        let whole = measured.whole(&mut advance)?;
        let parts = measured.parts(sensitivities)?;
        let tokens = |sequences: &[Vec<u32>]| sequences.iter().map(Vec::len).sum();
        Ok(QuantizeReport {
            source: self.source.to_path_buf(),
            target: self.target.to_path_buf(),
            method: options.method.name(),
            group_size: options.group_size,
            parameters: reader.config().parameter_count(),
            source_bytes: reader.bytes()?,
            bytes: widths::bytes(options, reader, matrices, widths)?,
            bits_per_weight: widths::bits_per_weight(options, reader, matrices, widths)?,
            calibration_tokens: tokens(&self.texts.calibration),
            valid_tokens: tokens(&self.texts.held_out),
            unquantized_perplexity: whole.unquantized.perplexity,
            rounded: whole.rounded,
            quantized: whole.quantized,
            parts,
            points: whole.points,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Writes the folder.
    fn write(
        &mut self,
        (widths, _): &(QuantizationMap, Sensitivities),
        learned: &Tensors,
        report: &QuantizeReport,
    ) -> Result<()> {
        let default = widths.default_quantization();
        let rules = self.matrices.iter().filter_map(|matrix| {
            let bits = widths.layer(&matrix.stem)?.bits();
            let is_other = bits != default.bits();
            is_other.then(|| LayerRule::exact(&matrix.stem, bits))
        });
        let options = ConvertOptions {
            quantize: Some(Quantize {
                quantization: default,
                recipe: None,
                layers: rules.collect::<Result<_>>()?,
            }),
            tokenizer: self.options.tokenizer.clone(),
            max_shard_bytes: self.options.max_shard_bytes,
            force: self.options.force,
            verify: false,
            ..ConvertOptions::default()
        };
        let json = serde_json::to_value(report);
        let json = json.map_err(|error| Error::io(REPORT)(error.into()))?;
        let state = &self.state;
        let tensor = |name: &str| match learned.get(name) {
            Some(found) => Ok(Some(found.clone())),
            None => state.tensor(name),
        };
        Conversion::open(self.source, &options)?
            .with_tensors(&tensor)
            .with_file(REPORT, format!("{json:#}\n"))
            .write(self.target, self.cancel, |_| ())?;
        Ok(())
    }
}

/// The matrix or norm `name` of the result, f32; `None` for the source's own.
fn float32(
    state: &State,
    widths: &QuantizationMap,
    learned: &Tensors,
    name: &str,
) -> Result<Option<Array>> {
    let Some(mut matrix) = state.matrix(name, widths)? else {
        return state.float32(name, widths);
    };
    if let Some(scales) = learned.get(&format!("{name}.scales")) {
        matrix.scales = scales.clone();
        matrix.biases = learned.get(&format!("{name}.biases")).cloned();
    }
    matrix.expand(Dtype::Float32).map(Some)
}

/// Refuses widths that the model cannot have, before any text is read.
fn check_widths(
    options: &QuantizeOptions,
    reader: &ModelReader,
    matrices: &[MatrixShape],
) -> Result<()> {
    match options.widths {
        Widths::Uniform(bits) => widths::uniform(options, matrices, bits).map(|_| ()),
        Widths::Target(target) => widths::check_target(options, reader, matrices, target),
    }
}

/// The inputs in addition to the source, by their options.
fn inputs(options: &QuantizeOptions) -> impl Iterator<Item = (&str, &Path)> {
    let data = options.data.iter().map(|path| ("data", path.as_path()));
    data.chain(options.valid.iter().map(|path| ("valid", path.as_path())))
}

/// Identifies a run: everything that its result depends on.
fn key(
    source: &Path,
    options: &QuantizeOptions,
    reader: &ModelReader,
    tokenizer: &Tokenizer,
    texts: &Texts,
) -> Result<String> {
    let mut tokens = Fingerprint::new();
    for id in texts.calibration.iter().chain(&texts.held_out).flatten() {
        tokens.number(u64::from(*id));
    }
    let widths = match options.widths {
        Widths::Uniform(bits) => json!({ "bits": bits }),
        Widths::Target(bits) => json!({ "target_bits": bits }),
    };
    let distillation = (options.method == Method::Dwq).then(|| {
        json!({
            "start": options.start.name(),
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
        })
    });
    let key = json!({
        "version": 1,
        "source": source,
        "files": reader.fingerprint()?,
        "tokenizer": tokenizer.path(),
        "method": options.method.name(),
        "widths": widths,
        "group_size": options.group_size,
        "damping": options.damping,
        "calibration_sequences": texts.calibration.len(),
        "tokens": tokens.to_string(),
        "distillation": distillation,
    });
    Ok(key.to_string())
}
