//! Passes over the text with the weights of one layer in memory.

use mlx_rs::Array;

use super::{model_reader::ModelReader, quality::Outputs, texts::token_array};
use crate::{
    cancel::CancelHandle,
    config::tensor_names::{EMBEDDING, HEAD, layer as layer_name},
    error::{Error, Result},
    gate::pause_point,
    mlx::{Matrix, evaluation, runtime},
    model::{PROJECTIONS, SingleLayer, is_finite},
};

/// Sequences that pass a layer together.
const TOGETHER: usize = 4;

/// The matrix that stands in for the matrix of a name, f32; `None` for the model's own.
pub(super) type Replacement<'a> = dyn Fn(&str, &Array) -> Result<Option<Array>> + 'a;

/// Hidden states between two layers, f32 `[B, L, D]`.
#[derive(Debug, Clone)]
pub(super) struct Hidden(pub(super) Vec<Array>);

impl Hidden {
    /// The rows of `embedding` `[V, D]` of the tokens of `sequences`.
    pub(super) fn embed(embedding: &Array, sequences: &[Vec<u32>]) -> Result<Self> {
        let parts = sequences.chunks(TOGETHER).map(|part| {
            let x = embedding.take_axis(token_array(part), 0)?;
            evaluation::complete([&x])?;
            Ok(x)
        });
        Ok(Self(parts.collect::<Result<_>>()?))
    }

    /// The output of `layer`, evaluated. `place` names the layer, for errors.
    pub(super) fn through(
        &self,
        layer: &SingleLayer,
        place: &str,
        cancel: &CancelHandle,
    ) -> Result<Self> {
        let parts = self.0.iter().map(|x| {
            cancel.check()?;
            pause_point(cancel, runtime::synchronize)?;
            let y = layer.forward(x)?;
            evaluation::complete([&y])?;
            check_finite(&y, place)?;
            Ok(y)
        });
        Ok(Self(parts.collect::<Result<_>>()?))
    }

    /// The results of `function` for each part, evaluated.
    pub(super) fn map(&self, function: impl Fn(&Array) -> Result<Array>) -> Result<Vec<Array>> {
        let parts = self.0.iter().map(|x| {
            let y = function(x)?;
            evaluation::complete([&y])?;
            Ok(y)
        });
        parts.collect()
    }
}

/// `layer` with the matrices of `replacement`.
pub(super) fn replaced(
    layer: &SingleLayer,
    index: usize,
    replacement: &Replacement<'_>,
) -> Result<SingleLayer> {
    let mut layer = layer.clone();
    for (name, matrix) in PROJECTIONS.into_iter().zip(layer.matrices()?) {
        if let Some(new) = replacement(&layer_name(index, name), &matrix.float32()?)? {
            layer.set_matrix(name, &Matrix::Dense(new))?;
        }
    }
    Ok(layer)
}

/// The outputs of the model with each of `replacements` for `sequences`, in one pass.
///
/// # Errors
/// [`Error::NonFinite`]; [`Error::Cancelled`]; [`Error::Mlx`]; the errors of the source's readers
/// and of the replacements.
pub(super) fn outputs(
    reader: &ModelReader,
    sequences: &[Vec<u32>],
    replacements: &[&Replacement<'_>],
    cancel: &CancelHandle,
    mut after_layer: impl FnMut(usize),
) -> Result<Vec<Outputs>> {
    let mut streams = {
        let embedding = reader.embedding()?;
        let streams = replacements.iter().map(|replacement| {
            let rows = replacement(EMBEDDING, &embedding)?;
            Hidden::embed(rows.as_ref().unwrap_or(&embedding), sequences)
        });
        streams.collect::<Result<Vec<_>>>()?
    };
    for index in 0..reader.config().num_transformer_layers() {
        let layer = reader.layer(index)?;
        for (stream, replacement) in streams.iter_mut().zip(replacements) {
            let layer = replaced(&layer, index, *replacement)?;
            *stream = stream.through(&layer, &format!("layer {index}"), cancel)?;
        }
        after_layer(index);
    }
    let norm = reader.final_norm()?;
    let head = reader.head()?;
    let tied = reader.config().share_input_output_layers();
    let name = if tied { EMBEDDING } else { HEAD };
    let outputs = streams.into_iter().zip(replacements);
    let outputs = outputs.map(|(stream, replacement)| {
        Ok(Outputs {
            hidden: stream.map(&norm)?,
            head: replacement(name, &head)?.unwrap_or_else(|| head.clone()),
        })
    });
    outputs.collect()
}

/// A part of the network in the order of the computation.
pub(super) enum Place<'a> {
    /// The embedding `[V, D]`, which may also be the head.
    Embedding(&'a Array),
    /// A layer, its index, and its inputs.
    Layer(&'a SingleLayer, usize, &'a Hidden),
    /// A head of its own `[V, D]`.
    Head(&'a Array),
}

/// A part of the network with other weights.
pub(super) enum Variant {
    Matrix(Array),
    Layer(Box<SingleLayer>),
}

/// The outputs of the model, and those with one part replaced by each of the variants that `vary`
/// returns for it, in their order. One pass.
///
/// # Errors
/// As [`outputs`].
pub(super) fn variants(
    reader: &ModelReader,
    sequences: &[Vec<u32>],
    cancel: &CancelHandle,
    vary: &mut dyn FnMut(Place<'_>) -> Result<Vec<Variant>>,
) -> Result<(Outputs, Vec<Outputs>)> {
    let tied = reader.config().share_input_output_layers();
    let mut heads: Vec<Option<Array>> = Vec::new();
    let (mut own, mut streams) = {
        let embedding = reader.embedding()?;
        let mut streams = Vec::new();
        for variant in vary(Place::Embedding(&embedding))? {
            if let Variant::Matrix(matrix) = variant {
                streams.push(Hidden::embed(&matrix, sequences)?);
                heads.push(tied.then_some(matrix));
            }
        }
        (Hidden::embed(&embedding, sequences)?, streams)
    };
    for index in 0..reader.config().num_transformer_layers() {
        let place = format!("layer {index}");
        let layer = reader.layer(index)?;
        for stream in &mut streams {
            *stream = stream.through(&layer, &place, cancel)?;
        }
        for variant in vary(Place::Layer(&layer, index, &own))? {
            if let Variant::Layer(layer) = variant {
                streams.push(own.through(&layer, &place, cancel)?);
                heads.push(None);
            }
        }
        own = own.through(&layer, &place, cancel)?;
    }
    let (norm, head) = (reader.final_norm()?, reader.head()?);
    if !tied {
        for variant in vary(Place::Head(&head))? {
            if let Variant::Matrix(matrix) = variant {
                streams.push(own.clone());
                heads.push(Some(matrix));
            }
        }
    }
    let output = |hidden: Hidden, own: Option<Array>| -> Result<Outputs> {
        Ok(Outputs {
            hidden: hidden.map(&norm)?,
            head: own.unwrap_or_else(|| head.clone()),
        })
    };
    let outputs = streams.into_iter().zip(heads);
    let outputs = outputs.map(|(hidden, head)| output(hidden, head));
    let outputs = outputs.collect::<Result<_>>()?;
    Ok((output(own, None)?, outputs))
}

fn check_finite(x: &Array, place: &str) -> Result<()> {
    if is_finite(x)? {
        return Ok(());
    }
    Err(Error::NonFinite {
        place: place.to_owned(),
        problem: "its output for the text is NaN or infinity".into(),
    })
}
