//! Quantisation of the network part by part: the embedding, each layer, the head.
//!
//! A layer's projections are quantised in the order of the computation. The calibration text goes
//! through the parts that are quantised already, so that the Hessian of a projection is that of the
//! inputs that it will have.

use mlx_rs::Array;

use super::{
    awq,
    event::QuantizeEvent,
    gptq::gptq,
    hessian::Hessian,
    model_reader::ModelReader,
    options::{Method, QuantizeOptions},
    passes::{Hidden, replaced},
    quality::Outputs,
    state::{State, part_of},
    widths::{MatrixShape, mean_squares},
};
use crate::{
    cancel::CancelHandle,
    config::tensor_names::{EMBEDDING, HEAD, layer as layer_name, weight},
    error::{Error, Result},
    gate::pause_point,
    mlx::{Dtype, Matrix, Quantization, QuantizationMap, QuantizedMatrix, evaluation, runtime},
    model::{PROJECTIONS, SingleLayer},
    weights::Tensors,
};

/// Damping of the Hessian of a matrix that is embedding and head: an error of a row is an error of
/// the residual stream too, whatever its direction.
const TIED_DAMPING: f64 = 1.0;

/// Quantises all parts that are not finished.
pub(super) struct LayerQuantizer<'a> {
    pub(super) options: &'a QuantizeOptions,
    pub(super) reader: &'a ModelReader,
    pub(super) matrices: &'a [MatrixShape],
    pub(super) widths: &'a QuantizationMap,
    pub(super) state: &'a State,
    pub(super) cancel: &'a CancelHandle,
    pub(super) progress: &'a mut dyn FnMut(QuantizeEvent),
}

impl LayerQuantizer<'_> {
    /// Quantises the parts with the calibration `sequences`. `teacher` are the outputs of the
    /// unquantised model for them, which GPTQ needs for the head.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; [`Error::Cancelled`]; [`Error::Io`]; [`Error::Mlx`]; the errors of the
    /// source's readers.
    pub(super) fn run(&mut self, sequences: &[Vec<u32>], teacher: Option<&Outputs>) -> Result<()> {
        let config = self.reader.config();
        let (layers, tied) = (
            config.num_transformer_layers(),
            config.share_input_output_layers(),
        );
        let total = layers + if tied { 1 } else { 2 };
        let mut done = 0;
        let mut finished = |this: &mut Self| {
            done += 1;
            (this.progress)(QuantizeEvent::Quantized { done, total });
        };
        let embedding = self.reader.embedding()?;
        let damping = TIED_DAMPING;
        let hessian = if tied { teacher } else { None };
        self.outside(EMBEDDING, &embedding, hessian, damping)?;
        finished(self);
        let is_round = self.options.first_method() == Method::Round;
        let mut hidden = if is_round {
            None
        } else {
            let rows = self.state.float32(EMBEDDING, self.widths)?;
            Some(Hidden::embed(&rows.unwrap_or(embedding), sequences)?)
        };
        for index in 0..layers {
            self.cancel.check()?;
            pause_point(self.cancel, runtime::synchronize)?;
            let is_last = index + 1 == layers;
            let has = self.state.has(&part_of(&layer_name(index, "")));
            if !has || hidden.is_some() && !is_last {
                let mut layer = self.reader.layer(index)?;
                if !has {
                    self.layer(index, layer.clone(), hidden.as_ref())?;
                }
                if let Some(hidden) = hidden.as_mut().filter(|_| !is_last) {
                    let learned = |name: &str, _: &Array| self.state.float32(name, self.widths);
                    layer = replaced(&layer, index, &learned)?;
                    *hidden = hidden.through(&layer, &format!("layer {index}"), self.cancel)?;
                }
            }
            finished(self);
        }
        if !tied {
            let head = self.reader.head()?;
            self.outside(HEAD, &head, teacher, self.options.damping)?;
            finished(self);
        }
        Ok(())
    }

    /// Quantises a matrix outside of layers, whose inputs are the last hidden states of `outputs`.
    fn outside(
        &self,
        stem: &str,
        matrix: &Array,
        outputs: Option<&Outputs>,
        damping: f64,
    ) -> Result<()> {
        if self.state.has(stem) {
            return Ok(());
        }
        let Some((quantization, dtype)) = self.quantization(stem) else {
            return Ok(());
        };
        let found = match (self.options.first_method(), outputs) {
            (Method::Awq, Some(outputs)) => {
                let hidden = Hidden(outputs.hidden.clone());
                let squares = mean_squares(&hidden, |x| Ok(x.clone()))?;
                awq::round_for(matrix, &squares, quantization, dtype)?
            }
            (Method::Gptq, Some(outputs)) => {
                let mut hessian = Hessian::new(matrix.dim(1) as usize)?;
                outputs.hidden.iter().try_for_each(|x| hessian.add(x))?;
                let factor = hessian.inverse_factor(damping, stem)?;
                gptq(matrix, &factor, quantization, dtype)?
            }
            _ => QuantizedMatrix::quantize(&matrix.as_dtype(dtype.mlx())?, quantization)?,
        };
        let mut tensors = Tensors::new();
        insert(&mut tensors, stem, found);
        self.state.save(stem, &tensors, 0)
    }

    /// Quantises the projections of a layer with the inputs `hidden`.
    fn layer(&self, index: usize, mut layer: SingleLayer, hidden: Option<&Hidden>) -> Result<()> {
        let mut tensors = Tensors::new();
        let method = self.options.first_method();
        let config = self.reader.config();
        if let (Method::Awq, Some(hidden), Some(sizes)) =
            (method, hidden, config.layers().get(index))
        {
            let quantization = |name: &str| self.quantization(&layer_name(index, name));
            for (name, norm) in awq::scale(&mut layer, config, sizes, hidden, &quantization)? {
                let name = weight(&layer_name(index, &name));
                tensors.insert(name, norm);
            }
        }
        for (place, name) in PROJECTIONS.into_iter().enumerate() {
            let stem = layer_name(index, name);
            let Some((quantization, dtype)) = self.quantization(&stem) else {
                continue;
            };
            self.cancel.check()?;
            let matrices = layer.matrices()?;
            let matrix = matrices.get(place).ok_or_else(|| {
                Error::option("projection", format!("a layer has no projection `{name}`"))
            })?;
            let matrix = matrix.float32()?;
            let found = match (method, hidden) {
                (Method::Gptq | Method::Dwq, Some(hidden)) => {
                    let mut hessian = Hessian::new(matrix.dim(1) as usize)?;
                    for x in &hidden.0 {
                        self.cancel.check()?;
                        hessian.add(&layer.input_of(name, x)?)?;
                    }
                    let factor = hessian.inverse_factor(self.options.damping, &stem)?;
                    gptq(&matrix, &factor, quantization, dtype)?
                }
                (Method::Awq, Some(hidden)) => {
                    let squares = mean_squares(hidden, |x| layer.input_of(name, x))?;
                    awq::round_for(&matrix, &squares, quantization, dtype)?
                }
                _ => QuantizedMatrix::quantize(&matrix.as_dtype(dtype.mlx())?, quantization)?,
            };
            evaluation::complete(found.arrays())?;
            if hidden.is_some() {
                let dense = found.clone().expand(Dtype::Float32)?;
                layer.set_matrix(name, &Matrix::Dense(dense))?;
            }
            insert(&mut tensors, &stem, found);
        }
        self.state
            .save(&part_of(&layer_name(index, "")), &tensors, 0)
    }

    /// The quantisation of the matrix `stem` and the type of its scales; `None` if it is not
    /// quantised.
    fn quantization(&self, stem: &str) -> Option<(Quantization, Dtype)> {
        let matrix = self.matrices.iter().find(|matrix| matrix.stem == stem)?;
        let quantization = self.widths.layer(stem)?;
        quantization
            .fits(matrix.width)
            .then_some((quantization, matrix.dtype))
    }
}

/// Adds the arrays of the matrix `stem` under their names in a file.
pub(super) fn insert(tensors: &mut Tensors, stem: &str, matrix: QuantizedMatrix) {
    tensors.insert(weight(stem), matrix.weight);
    tensors.insert(format!("{stem}.scales"), matrix.scales);
    if let Some(biases) = matrix.biases {
        tensors.insert(format!("{stem}.biases"), biases);
    }
}
