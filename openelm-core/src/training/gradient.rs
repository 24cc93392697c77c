//! The gradient of the loss, in one pass or layer by layer.

use std::cell::RefCell;

use mlx_rs::{
    Array,
    error::Exception,
    ops::zeros_like,
    transforms::{eval, fallible_vjp, value_and_grad_with_argnums},
};

use super::{
    batch_arrays::BatchArrays,
    exception::into_exception,
    loss::{self, Loss, Objective},
    trainable::TrainableModel,
};
use crate::{
    cancel::CancelHandle,
    error::Result,
    gate::pause_point,
    mlx::{Device, runtime},
    model::Model,
};

/// The loss of a batch and its gradients.
pub(super) struct LossAndGradients {
    /// Mean over the targets, in nats.
    pub(super) loss: Array,
    /// The part of `loss` that is z-loss.
    pub(super) z_loss: Array,
    /// One gradient per parameter.
    pub(super) gradients: Vec<Array>,
}

/// The loss of `batch` and the gradients of `parameters`; lazy, except with checkpointing, which
/// casts the parameters itself. `copies` are the parameters in the dtype of the computation.
pub(super) fn loss_and_gradients(
    trainable: &TrainableModel,
    parameters: &[Array],
    copies: Option<&[Array]>,
    dropout_keys: &[Array],
    checkpoint: bool,
    batch: &BatchArrays,
    objective: Objective<'_>,
) -> Result<LossAndGradients> {
    if checkpoint {
        return layer_by_layer(trainable, &parameters, dropout_keys, batch, objective);
    }
    let mask = batch.mask(trainable.dtype())?;
    let loss_of = |parameters: &[Array], copies: Option<&[Array]>| {
        let model = trainable.model(parameters, copies, dropout_keys)?;
        let hidden = model.hidden_of(&batch.tokens, mask.as_ref())?;
        loss::of_hidden(&model, &hidden, batch, trainable.trains_head(), objective)
    };
    let Some(copies) = copies else {
        return value_and_gradients(parameters, |parameters| loss_of(parameters, None));
    };
    // The gradient of a parameter is its copy's, cast, and that of the look-up in the parameter.
    let looked_up = trainable.looked_up();
    let mut arguments = copies.to_vec();
    arguments.extend(looked_up.and_then(|i| parameters.get(i)).cloned());
    let mut found = value_and_gradients(&arguments, |arguments| {
        let (copies, rows) = arguments.split_at(copies.len());
        let mut parameters = parameters.to_vec();
        if let (Some(i), [rows]) = (looked_up, rows)
            && let Some(parameter) = parameters.get_mut(i)
        {
            *parameter = rows.clone();
        }
        loss_of(&parameters, Some(copies))
    })?;
    let by_rows = found.gradients.split_off(copies.len()).pop();
    for (gradient, parameter) in found.gradients.iter_mut().zip(parameters) {
        *gradient = gradient.as_dtype(parameter.dtype())?;
    }
    if let (Some(i), Some(by_rows)) = (looked_up, by_rows)
        && let Some(gradient) = found.gradients.get_mut(i)
    {
        *gradient = gradient.add(by_rows)?;
    }
    Ok(found)
}

/// Scales `gradients` down to a norm of `most` if theirs is larger; returns the original norm.
/// Equals PyTorch's `clip_grad_norm_`.
pub(super) fn clip(gradients: &mut [Array], most: f32) -> Result<Array> {
    let device = Device::current()?;
    let mut square = Array::from_f32(0.0);
    for gradient in gradients.iter() {
        let mut squares = gradient.square()?;
        if device == Device::Cpu {
            // Per row: there, MLX's sum of millions of numbers at once is off by a percent.
            squares = squares.sum_axis(-1, false)?;
        }
        square = square.add(squares.sum(false)?)?;
    }
    let norm = square.sqrt()?;
    let allowed = Array::from_f32(most).divide(norm.add(Array::from_f32(1e-6))?)?;
    let factor = mlx_rs::ops::minimum(allowed, Array::from_f32(1.0))?;
    for gradient in gradients {
        *gradient = gradient.multiply(&factor)?;
    }
    Ok(norm)
}

/// The loss and z-loss of `function`, and the gradient of the loss with respect to each of
/// `arguments`.
fn value_and_gradients(
    arguments: &[Array],
    function: impl Fn(&[Array]) -> Result<Loss>,
) -> Result<LossAndGradients> {
    let numbers: Vec<i32> = (0..arguments.len() as i32).collect();
    let failure = RefCell::new(None);
    let inner = |arguments: &[Array]| {
        let loss = function(arguments).map_err(|error| {
            failure.replace(Some(error));
            Exception::custom("the loss failed")
        })?;
        // MLX differentiates the first value.
        Ok::<_, Exception>(vec![loss.differentiable, loss.value, loss.z_loss])
    };
    let result = value_and_grad_with_argnums(inner, numbers.as_slice())(arguments);
    match (result, failure.take()) {
        (_, Some(error)) => Err(error),
        (Err(exception), None) => Err(exception.into()),
        (Ok((values, gradients)), None) => match <[Array; 3]>::try_from(values) {
            Ok([_, loss, z_loss]) => Ok(LossAndGradients {
                loss,
                z_loss,
                gradients,
            }),
            Err(_) => Err(Exception::custom("the loss has no value").into()),
        },
    }
}

/// The parameters of a pass that needs those of one layer at a time.
pub(super) trait LayerParameters {
    /// An array of the shape of each parameter. Those outside a layer have values only if all have.
    fn places(&self) -> Result<Vec<Array>>;

    /// The parameters `indices` with their values.
    fn chosen(&self, indices: &[usize]) -> Result<Vec<Array>>;

    /// The gradients of the parameters `indices` as the pass returns them.
    fn gradients(&self, indices: &[usize], gradients: Vec<Array>) -> Result<Vec<Array>>;

    /// The gradient of the parameter `index`, which the loss does not depend on.
    fn zeros(&self, index: usize) -> Result<Array>;
}

impl LayerParameters for &[Array] {
    fn places(&self) -> Result<Vec<Array>> {
        Ok(self.to_vec())
    }

    fn chosen(&self, indices: &[usize]) -> Result<Vec<Array>> {
        let chosen = indices.iter().filter_map(|&index| self.get(index));
        Ok(chosen.cloned().collect())
    }

    fn gradients(&self, _: &[usize], gradients: Vec<Array>) -> Result<Vec<Array>> {
        Ok(gradients)
    }

    #[expect(
        clippy::expect_used,
        reason = "the indices are those of the parameters"
    )]
    fn zeros(&self, index: usize) -> Result<Array> {
        let parameter = self.get(index).expect("the parameter exists");
        Ok(zeros_like(parameter)?)
    }
}

/// Gradient checkpointing: like [`loss_and_gradients`], with a pass that stores only the inputs of
/// the layers.
pub(super) fn layer_by_layer(
    trainable: &TrainableModel,
    parameters: &dyn LayerParameters,
    dropout_keys: &[Array],
    batch: &BatchArrays,
    objective: Objective<'_>,
) -> Result<LossAndGradients> {
    let pass = Checkpointed {
        trainable,
        places: parameters.places()?,
        parameters,
        dropout_keys,
    };
    pass.loss_and_gradients(batch, objective)
}

/// The loss of [`layer_by_layer`] without gradients.
pub(super) fn loss_layer_by_layer(
    trainable: &TrainableModel,
    parameters: &dyn LayerParameters,
    batch: &BatchArrays,
    objective: Objective<'_>,
) -> Result<Array> {
    let pass = Checkpointed {
        trainable,
        places: parameters.places()?,
        parameters,
        dropout_keys: &[],
    };
    let mask = batch.mask(trainable.dtype())?;
    let output = pass
        .layer_inputs(&batch.tokens, mask.as_ref(), false)?
        .pop();
    let (hidden, model) = match output {
        None => return Err(Exception::custom("the model has no output").into()),
        Some(x) => {
            let rest = pass.below(None);
            let model = pass.model_with(&rest, &parameters.chosen(&rest)?)?;
            (model.normed(&x)?, model)
        }
    };
    let loss = loss::of_hidden(&model, &hidden, batch, trainable.trains_head(), objective)?;
    Ok(loss.value)
}

/// A pass that stores only the inputs of the layers.
struct Checkpointed<'a> {
    trainable: &'a TrainableModel,
    /// [`LayerParameters::places`].
    places: Vec<Array>,
    parameters: &'a dyn LayerParameters,
    dropout_keys: &'a [Array],
}

impl Checkpointed<'_> {
    #[expect(
        clippy::expect_used,
        reason = "each layer has an input and a gradient with respect to it"
    )]
    fn loss_and_gradients(
        &self,
        batch: &BatchArrays,
        objective: Objective<'_>,
    ) -> Result<LossAndGradients> {
        let tokens = &batch.tokens;
        let mask = batch.mask(self.trainable.dtype())?;
        let layers = self.trainable.layers();
        let own: Vec<Vec<usize>> = (0..layers).map(|layer| self.below(Some(layer))).collect();
        let rest = self.below(None);
        let mut inputs = self.layer_inputs(tokens, mask.as_ref(), true)?;
        let mut gradients: Vec<Option<Array>> = vec![None; self.places.len()];

        // The loss, head and final norm.
        let mut arguments = self.parameters.chosen(&rest)?;
        arguments.extend(inputs.pop());
        let head = value_and_gradients(&arguments, |arguments| {
            let (x, chosen) = split_last(arguments)?;
            let model = self.model_with(&rest, chosen)?;
            let hidden = model.normed(x)?;
            let trains_head = self.trainable.trains_head();
            loss::of_hidden(&model, &hidden, batch, trains_head, objective)
        })?;
        drop(arguments);
        let (loss, z_loss) = (head.loss, head.z_loss);
        let mut by_x = self.collect(&mut gradients, &rest, head.gradients, &[&loss, &z_loss])?;
        pause()?;

        let embeds = rest.iter().any(|&i| {
            let name = self.trainable.names().get(i);
            name.is_some_and(|name| name.contains("token_embeddings"))
        });
        // Layers below the first one with parameters are not trained.
        let first = own.iter().position(|own| !own.is_empty()).unwrap_or(layers);
        let first = if embeds { 0 } else { first };
        for (layer, own) in own.iter().enumerate().skip(first).rev() {
            let x = inputs.pop().expect("each layer has an input");
            let by_output = by_x
                .take()
                .expect("the layer above has a gradient by its input");
            by_x = self.layer_gradients(layer, own, x, by_output, mask.as_ref(), &mut gradients)?;
        }
        if embeds {
            let by_output = by_x.expect("the first layer has a gradient by its input");
            self.embedding_gradients(tokens, &rest, by_output, &mut gradients)?;
        }
        let gradients = gradients.into_iter().enumerate();
        let gradients = gradients.map(|(index, gradient)| match gradient {
            Some(gradient) => Ok(gradient),
            None => self.parameters.zeros(index),
        });
        Ok(LossAndGradients {
            loss,
            z_loss,
            gradients: gradients.collect::<Result<_>>()?,
        })
    }

    /// The input of each layer `[B, L, D]`, and the last one's output; without `all`, the last one's
    /// output only.
    fn layer_inputs(&self, tokens: &Array, mask: Option<&Array>, all: bool) -> Result<Vec<Array>> {
        let rest = self.below(None);
        let embedding = self.model_with(&rest, &self.parameters.chosen(&rest)?)?;
        let mut x = embedding.embed(tokens)?;
        let mut inputs = vec![x.clone()];
        x.eval()?;
        drop(embedding);
        for layer in 0..self.trainable.layers() {
            pause()?;
            let own = self.below(Some(layer));
            let model = self.model_with(&own, &self.parameters.chosen(&own)?)?;
            x = model.layer(layer, &x, mask)?;
            x.eval()?;
            if !all {
                inputs.clear();
            }
            inputs.push(x.clone());
        }
        Ok(inputs)
    }

    /// Recomputes a layer from its input `x` `[B, L, D]`. Stores the gradients of its parameters
    /// `own` and returns the gradient with respect to `x`.
    fn layer_gradients(
        &self,
        layer: usize,
        own: &[usize],
        x: Array,
        by_output: Array,
        mask: Option<&Array>,
        gradients: &mut [Option<Array>],
    ) -> Result<Option<Array>> {
        let mut arguments = self.parameters.chosen(own)?;
        arguments.push(x);
        let forward = |arguments: &[Array]| {
            let run = || {
                let (x, chosen) = split_last(arguments)?;
                self.model_with(own, chosen)?.layer(layer, x, mask)
            };
            run().map(|x| vec![x]).map_err(into_exception)
        };
        let (_, by_arguments) = fallible_vjp(forward, &arguments, &[by_output])?;
        drop(arguments);
        let by_x = self.collect(gradients, own, by_arguments, &[])?;
        pause()?;
        Ok(by_x)
    }

    /// Adds the gradients of the embedding's look-up to the gradients of its use as the head.
    fn embedding_gradients(
        &self,
        tokens: &Array,
        rest: &[usize],
        by_output: Array,
        gradients: &mut [Option<Array>],
    ) -> Result<()> {
        let forward = |arguments: &[Array]| {
            let run = || self.model_with(rest, arguments)?.embed(tokens);
            run().map(|x| vec![x]).map_err(into_exception)
        };
        let chosen = self.parameters.chosen(rest)?;
        let (_, by_arguments) = fallible_vjp(forward, &chosen, &[by_output])?;
        drop(chosen);
        let by_arguments = self.parameters.gradients(rest, by_arguments)?;
        for (&i, gradient) in rest.iter().zip(by_arguments) {
            if let Some(slot) = gradients.get_mut(i) {
                *slot = Some(match slot.take() {
                    Some(sum) => sum.add(gradient)?,
                    None => gradient,
                });
            }
        }
        Ok(())
    }

    /// The parameters of one layer; `None`: the parameters outside of layers.
    fn below(&self, layer: Option<usize>) -> Vec<usize> {
        let names = self.trainable.names().iter().enumerate();
        let in_layer = names.filter(|(_, name)| crate::adapter::layer_of(name) == layer);
        in_layer.map(|(i, _)| i).collect()
    }

    /// The model with the parameters `indices` replaced.
    fn model_with(&self, indices: &[usize], chosen: &[Array]) -> Result<Model> {
        let mut parameters = self.places.clone();
        for (&i, new) in indices.iter().zip(chosen) {
            if let Some(parameter) = parameters.get_mut(i) {
                *parameter = new.clone();
            }
        }
        self.trainable.model(&parameters, None, self.dropout_keys)
    }

    /// Evaluates the gradients `found` with `losses` and stores them at their indices; returns the
    /// last one, with respect to `x`.
    fn collect(
        &self,
        gradients: &mut [Option<Array>],
        indices: &[usize],
        mut found: Vec<Array>,
        losses: &[&Array],
    ) -> Result<Option<Array>> {
        // Together: what only one of them needs is not kept for the others.
        eval(found.iter().chain(losses.iter().copied()))?;
        let by_x = found.pop();
        let found = self.parameters.gradients(indices, found)?;
        for (&i, gradient) in indices.iter().zip(found) {
            if let Some(slot) = gradients.get_mut(i) {
                *slot = Some(gradient);
            }
        }
        Ok(by_x)
    }
}

/// A point between two layers at which the step rests while the gate is closed.
fn pause() -> Result<()> {
    pause_point(&CancelHandle::default(), runtime::synchronize)
}

fn split_last(arguments: &[Array]) -> Result<(&Array, &[Array])> {
    match arguments.split_last() {
        Some((x, rest)) => Ok((x, rest)),
        None => Err(Exception::custom("a function without arguments").into()),
    }
}
