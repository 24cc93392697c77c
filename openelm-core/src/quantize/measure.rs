//! The measurements of the report.

use mlx_rs::Array;

use super::{
    model_reader::ModelReader,
    options::{QuantizeOptions, WIDTHS},
    passes::{Place, Replacement, Variant, outputs, replaced, variants},
    quality::{Quality, compare},
    report::{MatrixReport, PartReport, SizePoint},
    state::part_of,
    widths::{self, MatrixShape, Sensitivities},
};
use crate::{
    cancel::CancelHandle,
    config::tensor_names::{EMBEDDING, HEAD, layer as layer_name},
    error::{Error, Result},
    mlx::QuantizationMap,
};

/// Sequences for the divergence of each part.
const SEQUENCES: usize = 4;

/// The models to measure and the held-out text.
pub(super) struct Measurement<'a> {
    pub(super) options: &'a QuantizeOptions,
    pub(super) reader: &'a ModelReader,
    pub(super) matrices: &'a [MatrixShape],
    pub(super) widths: &'a QuantizationMap,
    /// The matrices and norms of the result.
    pub(super) result: &'a Replacement<'a>,
    pub(super) sequences: &'a [Vec<u32>],
    pub(super) cancel: &'a CancelHandle,
}

/// The differences of whole models.
pub(super) struct Whole {
    pub(super) unquantized: Quality,
    pub(super) rounded: Quality,
    pub(super) quantized: Quality,
    pub(super) points: Vec<SizePoint>,
}

impl Measurement<'_> {
    /// Measures the unquantised model, the result, and the roundings to the result's widths and to
    /// each width, in one pass.
    pub(super) fn whole(&self, advance: &mut dyn FnMut(usize)) -> Result<Whole> {
        let uniform = WIDTHS.map(|bits| widths::uniform(self.options, self.matrices, bits));
        let uniform = uniform.into_iter().collect::<Result<Vec<_>>>()?;
        let own: &Replacement<'_> = &|_, _| Ok(None);
        let rounded = |name: &str, matrix: &Array| self.rounded(self.widths, name, matrix);
        let roundings: Vec<_> = uniform
            .iter()
            .map(|widths| move |name: &str, matrix: &Array| self.rounded(widths, name, matrix))
            .collect();
        let mut models: Vec<&Replacement<'_>> = vec![own, &rounded, self.result];
        models.extend(
            roundings
                .iter()
                .map(|rounding| rounding as &Replacement<'_>),
        );
        let found = outputs(self.reader, self.sequences, &models, self.cancel, advance)?;
        let reference = &found[0];
        let qualities = found
            .iter()
            .map(|outputs| compare(reference, outputs, self.sequences, self.cancel));
        let qualities = qualities.collect::<Result<Vec<_>>>()?;
        let point = |method, widths: &QuantizationMap, quality| {
            let (options, reader, matrices) = (self.options, self.reader, self.matrices);
            Ok::<_, Error>(SizePoint {
                method,
                bits_per_weight: widths::bits_per_weight(options, reader, matrices, widths)?,
                bytes: widths::bytes(options, reader, matrices, widths)?,
                quality,
            })
        };
        let mut points = Vec::new();
        for (widths, quality) in uniform.iter().zip(&qualities[3..]) {
            points.push(point("round", widths, *quality)?);
        }
        points.push(point(
            self.options.method.name(),
            self.widths,
            qualities[2],
        )?);
        Ok(Whole {
            unquantized: qualities[0],
            rounded: qualities[1],
            quantized: qualities[2],
            points,
        })
    }

    /// Measures each part by itself: the others are not quantised.
    pub(super) fn parts(&self, sensitivities: &Sensitivities) -> Result<Vec<PartReport>> {
        let sequences = &self.sequences[..SEQUENCES.min(self.sequences.len())];
        let mut names = Vec::new();
        let rounded = |name: &str, matrix: &Array| self.rounded(self.widths, name, matrix);
        let models: [&Replacement<'_>; 2] = [&rounded, self.result];
        let mut vary = |place: Place<'_>| -> Result<Vec<Variant>> {
            let (name, found) = match place {
                Place::Embedding(matrix) => (EMBEDDING.to_owned(), self.matrix(EMBEDDING, matrix)?),
                Place::Head(matrix) => (HEAD.to_owned(), self.matrix(HEAD, matrix)?),
                Place::Layer(layer, index, _) => {
                    let variant = |model: &&Replacement<'_>| {
                        Ok(Variant::Layer(Box::new(replaced(layer, index, *model)?)))
                    };
                    let found = models.iter().map(variant).collect::<Result<Vec<_>>>()?;
                    (
                        layer_name(index, "").trim_end_matches('.').to_owned(),
                        found,
                    )
                }
            };
            names.push(name);
            Ok(found)
        };
        let (own, outputs) = variants(self.reader, sequences, self.cancel, &mut vary)?;
        let pairs = names.into_iter().zip(outputs.chunks(2));
        let parts = pairs.map(|(name, outputs)| {
            let mut kls = [0.0; 2];
            for (kl, outputs) in kls.iter_mut().zip(outputs) {
                *kl = compare(&own, outputs, sequences, self.cancel)?.kl;
            }
            Ok(PartReport {
                matrices: self.matrices_of(&name, sensitivities),
                name,
                rounded_kl: kls[0],
                kl: kls[1],
            })
        });
        parts.collect()
    }

    /// A matrix outside of layers, rounded and of the result.
    fn matrix(&self, name: &str, matrix: &Array) -> Result<Vec<Variant>> {
        let rounded = self.rounded(self.widths, name, matrix)?;
        let result = (self.result)(name, matrix)?;
        let both = [rounded, result].into_iter();
        let both = both.map(|new| Variant::Matrix(new.unwrap_or_else(|| matrix.clone())));
        Ok(both.collect())
    }

    fn matrices_of(&self, part: &str, sensitivities: &Sensitivities) -> Vec<MatrixReport> {
        let own = |stem: &str| part_of(stem) == part_of(&format!("{part}.x")) || stem == part;
        let of_part = self.matrices.iter().filter(|matrix| own(&matrix.stem));
        let reports = of_part.filter_map(|matrix| {
            let quantization = self.widths.layer(&matrix.stem)?;
            quantization.fits(matrix.width).then(|| MatrixReport {
                name: matrix.stem.clone(),
                bits: quantization.bits(),
                sensitivity: sensitivities.get(&matrix.stem).cloned().unwrap_or_default(),
            })
        });
        reports.collect()
    }

    /// The matrix `name`, rounded to its width; `None` if it is not quantised.
    fn rounded(
        &self,
        widths: &QuantizationMap,
        name: &str,
        matrix: &Array,
    ) -> Result<Option<Array>> {
        let shape = self.matrices.iter().find(|shape| shape.stem == name);
        let Some((shape, quantization)) = shape.zip(widths.layer(name)) else {
            return Ok(None);
        };
        if !quantization.fits(shape.width) {
            return Ok(None);
        }
        widths::round(matrix, quantization, shape.dtype).map(Some)
    }
}
