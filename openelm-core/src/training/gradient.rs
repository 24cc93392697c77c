//! The gradient of the loss, in one go or layer by layer.

use std::cell::RefCell;

use mlx_rs::{
    Array,
    error::Exception,
    transforms::{eval, fallible_vjp, value_and_grad_with_argnums},
};

use super::{
    loss::{self, Objective},
    trainable::TrainableModel,
};
use crate::{
    data::batch::Batch,
    error::{Error, Result},
    model::Model,
};

/// The loss of `batch` and the part of it that is z-loss, and the gradient by each of `parameters`;
/// lazy, but for checkpointing.
pub(super) fn loss_and_gradients(
    trainable: &TrainableModel,
    parameters: &[Array],
    dropout_seed: u64,
    checkpoint: bool,
    batch: &Batch,
    objective: Objective<'_>,
) -> Result<([Array; 2], Vec<Array>)> {
    if checkpoint {
        let pass = Checkpointed {
            trainable,
            parameters,
            dropout_seed,
        };
        return pass.loss_and_gradients(batch, objective);
    }
    let tokens = loss::inputs(batch);
    let mask = loss::mask(batch, trainable.dtype())?;
    value_and_gradients(parameters, |parameters| {
        let model = trainable.model(parameters, Some(dropout_seed))?;
        let hidden = model.hidden_of(&tokens, mask.as_ref())?;
        loss::of_hidden(&model, &hidden, batch, trainable.trains_head(), objective)
    })
}

/// Scales `gradients` down to a length of `most` if they are longer; returns the length they had.
/// As PyTorch's `clip_grad_norm_`.
pub(super) fn clip(gradients: &mut [Array], most: f32) -> Result<Array> {
    let mut square = Array::from_f32(0.0);
    for gradient in gradients.iter() {
        // Row by row: MLX's sum of millions of numbers at once is off by a percent.
        let rows = gradient.square()?.sum_axis(-1, false)?;
        square = square.add(rows.sum(false)?)?;
    }
    let norm = square.sqrt()?;
    let allowed = Array::from_f32(most).divide(norm.add(Array::from_f32(1e-6))?)?;
    let factor = mlx_rs::ops::minimum(allowed, Array::from_f32(1.0))?;
    for gradient in gradients {
        *gradient = gradient.multiply(&factor)?;
    }
    Ok(norm)
}

/// An error of ours as MLX's closures want it.
pub(super) fn into_exception(error: Error) -> Exception {
    match error {
        Error::Mlx(exception) => exception,
        other => Exception::custom(other.to_string()),
    }
}

/// The values of `function`, and the gradient of the first by every one of `arguments`.
fn value_and_gradients(
    arguments: &[Array],
    function: impl Fn(&[Array]) -> Result<[Array; 2]>,
) -> Result<([Array; 2], Vec<Array>)> {
    let numbers: Vec<i32> = (0..arguments.len() as i32).collect();
    let failure = RefCell::new(None);
    let inner = |arguments: &[Array]| {
        let values = function(arguments).map_err(|error| {
            let exception = into_exception_of(&error);
            failure.replace(Some(error));
            exception
        })?;
        Ok::<_, Exception>(values.to_vec())
    };
    let result = value_and_grad_with_argnums(inner, numbers.as_slice())(arguments);
    match (result, failure.take()) {
        (_, Some(error)) => Err(error),
        (Err(exception), None) => Err(exception.into()),
        (Ok((values, gradients)), None) => match <[Array; 2]>::try_from(values) {
            Ok(values) => Ok((values, gradients)),
            Err(_) => Err(Exception::custom("the loss has no value").into()),
        },
    }
}

fn into_exception_of(error: &Error) -> Exception {
    Exception::custom(error.to_string())
}

/// A pass that keeps nothing but the layers' inputs.
struct Checkpointed<'a> {
    trainable: &'a TrainableModel,
    parameters: &'a [Array],
    dropout_seed: u64,
}

impl Checkpointed<'_> {
    fn loss_and_gradients(
        &self,
        batch: &Batch,
        objective: Objective<'_>,
    ) -> Result<([Array; 2], Vec<Array>)> {
        let tokens = loss::inputs(batch);
        let mask = loss::mask(batch, self.trainable.dtype())?;
        let layers = self.trainable.layers();
        let own: Vec<Vec<usize>> = (0..layers).map(|layer| self.below(Some(layer))).collect();
        let rest = self.below(None);

        let model = self
            .trainable
            .model(self.parameters, Some(self.dropout_seed))?;
        let mut inputs = vec![model.embed(&tokens)?];
        for layer in 0..layers {
            if let Some(x) = inputs.last() {
                x.eval()?;
                inputs.push(model.layer(layer, x, mask.as_ref())?);
            }
        }
        drop(model);
        let mut gradients: Vec<Option<Array>> = vec![None; self.parameters.len()];

        // The loss, the head and the final norm.
        let mut arguments = self.chosen(&rest);
        arguments.extend(inputs.pop());
        let (loss, by_arguments) = value_and_gradients(&arguments, |arguments| {
            let (x, chosen) = split_last(arguments)?;
            let model = self.model_with(&rest, chosen)?;
            let hidden = model.normed(x)?;
            let trains_head = self.trainable.trains_head();
            loss::of_hidden(&model, &hidden, batch, trains_head, objective)
        })?;
        let mut by_x = self.collect(&mut gradients, &rest, by_arguments)?;
        eval(by_x.iter().chain(&loss).chain(gradients.iter().flatten()))?;

        let embeds = rest.iter().any(|&i| {
            let names = self.trainable.names();
            names
                .get(i)
                .is_some_and(|name| name.contains("token_embeddings"))
        });
        let first = own.iter().position(|own| !own.is_empty()).unwrap_or(layers);
        let first = if embeds { 0 } else { first };
        for layer in (first..layers).rev() {
            let (Some(x), Some(own), Some(cotangent)) = (inputs.pop(), own.get(layer), by_x.take())
            else {
                break;
            };
            let mut arguments = self.chosen(own);
            arguments.push(x);
            let again = |arguments: &[Array]| {
                let run = || {
                    let (x, chosen) = split_last(arguments)?;
                    let model = self.model_with(own, chosen)?;
                    model.layer(layer, x, mask.as_ref())
                };
                run().map(|x| vec![x]).map_err(into_exception)
            };
            let (_, by_arguments) = fallible_vjp(again, &arguments, &[cotangent])?;
            by_x = self.collect(&mut gradients, own, by_arguments)?;
            let own = own.iter().filter_map(|&i| gradients.get(i)?.as_ref());
            eval(by_x.iter().chain(own))?;
        }
        if let (true, Some(cotangent)) = (embeds, by_x) {
            let again = |arguments: &[Array]| {
                let run = || self.model_with(&rest, arguments)?.embed(&tokens);
                run().map(|x| vec![x]).map_err(into_exception)
            };
            let (_, by_arguments) = fallible_vjp(again, &self.chosen(&rest), &[cotangent])?;
            for (&i, gradient) in rest.iter().zip(by_arguments) {
                if let Some(slot) = gradients.get_mut(i) {
                    *slot = Some(match slot.take() {
                        Some(sum) => sum.add(gradient)?,
                        None => gradient,
                    });
                }
            }
        }
        let gradients = gradients.into_iter().zip(self.parameters);
        let gradients = gradients.map(|(gradient, parameter)| match gradient {
            Some(gradient) => Ok(gradient),
            None => Ok(mlx_rs::ops::zeros_like(parameter)?),
        });
        Ok((loss, gradients.collect::<Result<_>>()?))
    }

    /// The parameters of one layer, or of none.
    fn below(&self, layer: Option<usize>) -> Vec<usize> {
        let names = self.trainable.names().iter().enumerate();
        let wanted = names.filter(|(_, name)| crate::adapter::layer_of(name) == layer);
        wanted.map(|(i, _)| i).collect()
    }

    fn chosen(&self, indices: &[usize]) -> Vec<Array> {
        let chosen = indices.iter().filter_map(|&i| self.parameters.get(i));
        chosen.cloned().collect()
    }

    /// The model with the parameters `indices` replaced.
    fn model_with(&self, indices: &[usize], chosen: &[Array]) -> Result<Model> {
        let mut parameters = self.parameters.to_vec();
        for (&i, new) in indices.iter().zip(chosen) {
            if let Some(parameter) = parameters.get_mut(i) {
                *parameter = new.clone();
            }
        }
        self.trainable.model(&parameters, Some(self.dropout_seed))
    }

    /// Puts gradients in their places; the last one, by `x`, is returned.
    fn collect(
        &self,
        gradients: &mut [Option<Array>],
        indices: &[usize],
        mut found: Vec<Array>,
    ) -> Result<Option<Array>> {
        let by_x = found.pop();
        for (&i, gradient) in indices.iter().zip(found) {
            if let Some(slot) = gradients.get_mut(i) {
                *slot = Some(gradient);
            }
        }
        Ok(by_x)
    }
}

fn split_last(arguments: &[Array]) -> Result<(&Array, &[Array])> {
    match arguments.split_last() {
        Some((x, rest)) => Ok((x, rest)),
        None => Err(Exception::custom("a function of nothing").into()),
    }
}
