//! A training step as a function of arrays: loss, gradient, clipping and the optimizer's update, or
//! a part of them. Nothing that changes between steps is a constant in it, so it can be compiled.

use std::rc::Rc;

use mlx_rs::{Array, error::Exception};

use super::{
    batch_arrays::BatchArrays,
    gradient::{self, LossAndGradients},
    loss::{self, Objective},
    optimizer::{Optimizer, Rates},
    preference::{PreferenceArrays, PreferenceLoss},
    trainable::TrainableModel,
    trainer_options::TrainerOptions,
};
use crate::error::Result;

/// The fixed part of a step: all that is no argument.
#[derive(Debug, Clone)]
pub(super) struct StepFunction {
    trainable: Rc<TrainableModel>,
    optimizer: Optimizer,
    clip_norm: Option<f32>,
    ema_decay: Option<f32>,
    z_loss: f32,
    label_smoothing: f32,
}

/// The arguments of a step.
#[derive(Debug, Clone)]
pub(super) struct Arguments {
    pub(super) parameters: Vec<Array>,
    /// The batch of the loss; `None` for an update with the gradients in `gathered`.
    pub(super) batch: Option<BatchArguments>,
    /// Gradients that are added to the batch's.
    pub(super) gathered: Option<Vec<Array>>,
    /// Factor of the gradients' sum.
    pub(super) share: Option<Array>,
    /// The state that an update changes; `None` to return the gradients.
    pub(super) update: Option<UpdateArguments>,
}

/// A batch and the numbers that belong to it.
#[derive(Debug, Clone)]
pub(super) struct BatchArguments {
    pub(super) arrays: BatchArrays,
    /// `None`: the batch's targets are predicted.
    pub(super) preference: Option<PreferenceArrays>,
    pub(super) dropout_keys: Vec<Array>,
    /// Factor of the batch's gradients.
    pub(super) weight: Option<Array>,
}

/// The state that an update changes, with the parameters, and its numbers.
#[derive(Debug, Clone)]
pub(super) struct UpdateArguments {
    /// The optimizer's state.
    pub(super) slots: Vec<Array>,
    /// The moving average of the parameters.
    pub(super) average: Option<Vec<Array>>,
    pub(super) rates: Rates,
}

/// The results of a step.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// The loss and its z-loss part, if there was a batch.
    pub(super) losses: Option<[Array; 2]>,
    /// The gradients' norm before clipping.
    pub(super) gradient_norm: Option<Array>,
    /// Without an update: the gradients.
    pub(super) gradients: Option<Vec<Array>>,
    /// After an update: the parameters, the optimizer's state and the average.
    pub(super) updated: Option<Updated>,
}

/// The state after an update.
#[derive(Debug)]
pub(super) struct Updated {
    pub(super) parameters: Vec<Array>,
    pub(super) slots: Vec<Array>,
    pub(super) average: Option<Vec<Array>>,
}

impl StepFunction {
    pub(super) fn new(trainable: Rc<TrainableModel>, options: &TrainerOptions) -> Self {
        Self {
            trainable,
            optimizer: options.optimizer,
            clip_norm: options.clip_norm,
            ema_decay: options.ema_decay,
            z_loss: options.z_loss,
            label_smoothing: options.label_smoothing,
        }
    }

    /// The results for `arguments`, lazily. It takes them by value: MLX reuses or frees the memory
    /// of an array during the evaluation only if nothing else holds it.
    ///
    /// `checkpoint` evaluates the batch's gradients layer by layer.
    pub(super) fn call(&self, mut arguments: Arguments, checkpoint: bool) -> Result<Results> {
        let mut results = Results::default();
        let mut gradients = match arguments.batch.take() {
            None => arguments.gathered.take().unwrap_or_default(),
            Some(batch) => {
                let found = gradient::loss_and_gradients(
                    &self.trainable,
                    &arguments.parameters,
                    &batch.dropout_keys,
                    checkpoint,
                    &batch.arrays,
                    self.objective(&batch),
                )?;
                let LossAndGradients {
                    loss,
                    z_loss,
                    mut gradients,
                } = found;
                results.losses = Some([loss, z_loss]);
                if let Some(weight) = &batch.weight {
                    scale(&mut gradients, weight)?;
                }
                for (gradient, sum) in gradients
                    .iter_mut()
                    .zip(arguments.gathered.take().into_iter().flatten())
                {
                    *gradient = gradient.add(sum)?;
                }
                gradients
            }
        };
        if let Some(share) = &arguments.share {
            scale(&mut gradients, share)?;
        }
        let Some(update) = arguments.update else {
            results.gradients = Some(gradients);
            return Ok(results);
        };
        if let Some(most) = self.clip_norm {
            results.gradient_norm = Some(gradient::clip(&mut gradients, most)?);
        }
        let mut parameters = arguments.parameters;
        let mut slots = update.slots;
        self.optimizer
            .update(&mut parameters, gradients, &mut slots, &update.rates)?;
        let mut average = update.average;
        if let (Some(average), Some(decay)) = (&mut average, self.ema_decay) {
            let (old, new) = (Array::from_f32(decay), Array::from_f32(1.0 - decay));
            for (average, parameter) in average.iter_mut().zip(&parameters) {
                *average = average.multiply(&old)?.add(parameter.multiply(&new)?)?;
            }
        }
        results.updated = Some(Updated {
            parameters,
            slots,
            average,
        });
        Ok(results)
    }

    /// DPO, or cross-entropy with the options' z-loss and label smoothing.
    fn objective<'a>(&self, batch: &'a BatchArguments) -> Objective<'a> {
        match &batch.preference {
            Some(preference) => Objective::Prefer(preference),
            None => Objective::Predict {
                z_loss: self.z_loss,
                label_smoothing: self.label_smoothing,
            },
        }
    }

    /// The results for `layout` in `arrays`, which [`Results::into_arrays`] made.
    pub(super) fn results(&self, layout: &Layout, arrays: Vec<Array>) -> Result<Results> {
        let mut arrays = arrays.into_iter();
        let mut next = || arrays.next().ok_or_else(missing);
        let losses = match &layout.batch {
            Some(_) => Some([next()?, next()?]),
            None => None,
        };
        let Some(update) = &layout.update else {
            return Ok(Results {
                losses,
                gradients: Some(arrays.collect()),
                ..Results::default()
            });
        };
        let gradient_norm = match self.clip_norm {
            Some(_) => Some(next()?),
            None => None,
        };
        let mut many = |count: usize| arrays.by_ref().take(count).collect::<Vec<_>>();
        Ok(Results {
            losses,
            gradient_norm,
            gradients: None,
            updated: Some(Updated {
                parameters: many(layout.parameters),
                slots: many(update.slots),
                average: update.average.then(|| many(layout.parameters)),
            }),
        })
    }
}

impl Results {
    /// The values of the loss and its z-loss part.
    pub(super) fn losses(&self) -> Result<[f32; 2]> {
        let [loss, z_loss] = self.losses.as_ref().ok_or_else(missing)?;
        Ok([loss::read(loss)?, loss::read(z_loss)?])
    }

    /// The value of the gradients' norm, if they are clipped.
    pub(super) fn gradient_norm(&self) -> Result<Option<f32>> {
        self.gradient_norm.as_ref().map(loss::read).transpose()
    }

    /// All arrays, for [`StepFunction::results`].
    pub(super) fn into_arrays(self) -> Vec<Array> {
        let mut arrays = Vec::new();
        arrays.extend(self.losses.into_iter().flatten());
        arrays.extend(self.gradient_norm);
        arrays.extend(self.gradients.into_iter().flatten());
        if let Some(updated) = self.updated {
            arrays.extend(updated.parameters);
            arrays.extend(updated.slots);
            arrays.extend(updated.average.into_iter().flatten());
        }
        arrays
    }
}

/// The layout of arguments: their presence, and the shapes that differ between steps. Steps of one
/// layout are one compiled function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    parameters: usize,
    batch: Option<BatchLayout>,
    gathered: bool,
    share: bool,
    update: Option<UpdateLayout>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BatchLayout {
    tokens: Vec<i32>,
    targets: i32,
    documents: bool,
    places: bool,
    counted: bool,
    preference: Option<PreferenceLoss>,
    dropout_keys: usize,
    weight: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct UpdateLayout {
    slots: usize,
    average: bool,
}

impl Arguments {
    /// Size of the state that a step changes, in bytes.
    pub(super) fn state_bytes(&self) -> u64 {
        let update = self.update.iter();
        let update =
            update.flat_map(|update| update.slots.iter().chain(update.average.iter().flatten()));
        let arrays = self.parameters.iter().chain(self.gathered.iter().flatten());
        arrays
            .chain(update)
            .map(|array| array.nbytes() as u64)
            .sum()
    }

    pub(super) fn layout(&self) -> Layout {
        Layout {
            parameters: self.parameters.len(),
            batch: self.batch.as_ref().map(|batch| BatchLayout {
                tokens: batch.arrays.tokens.shape().to_vec(),
                targets: batch.arrays.ids.dim(0),
                documents: batch.arrays.documents.is_some(),
                places: batch.arrays.places.is_some(),
                counted: batch.arrays.counted.is_some(),
                preference: batch.preference.as_ref().map(|preference| preference.loss),
                dropout_keys: batch.dropout_keys.len(),
                weight: batch.weight.is_some(),
            }),
            gathered: self.gathered.is_some(),
            share: self.share.is_some(),
            update: self.update.as_ref().map(|update| UpdateLayout {
                slots: update.slots.len(),
                average: update.average.is_some(),
            }),
        }
    }

    /// All arrays, for [`from_arrays`](Self::from_arrays).
    pub(super) fn arrays(&self) -> Vec<Array> {
        let mut arrays: Vec<&Array> = self.parameters.iter().collect();
        if let Some(BatchArguments {
            arrays: batch,
            preference,
            dropout_keys,
            weight,
        }) = &self.batch
        {
            let BatchArrays {
                tokens,
                ids,
                count,
                documents,
                places,
                counted,
            } = batch;
            arrays.extend([tokens, ids, count]);
            arrays.extend([documents, places, counted].into_iter().flatten());
            if let Some(PreferenceArrays {
                loss: _,
                beta,
                reference,
                rows,
            }) = preference
            {
                arrays.extend([beta, reference, rows]);
            }
            arrays.extend(dropout_keys);
            arrays.extend(weight);
        }
        arrays.extend(self.gathered.iter().flatten());
        arrays.extend(&self.share);
        if let Some(UpdateArguments {
            slots,
            average,
            rates,
        }) = &self.update
        {
            arrays.extend(slots);
            arrays.extend(average.iter().flatten());
            arrays.extend(rates.arrays());
        }
        arrays.into_iter().cloned().collect()
    }

    /// The arguments of `layout` with `arrays`.
    pub(super) fn from_arrays(layout: &Layout, arrays: &[Array]) -> Result<Self> {
        let mut rest = arrays.iter().cloned();
        let parameters = take(&mut rest, layout.parameters)?;
        let batch = match &layout.batch {
            None => None,
            Some(batch) => Some(BatchArguments {
                arrays: BatchArrays {
                    tokens: one(&mut rest)?,
                    ids: one(&mut rest)?,
                    count: one(&mut rest)?,
                    documents: maybe(&mut rest, batch.documents)?,
                    places: maybe(&mut rest, batch.places)?,
                    counted: maybe(&mut rest, batch.counted)?,
                },
                preference: match batch.preference {
                    None => None,
                    Some(loss) => Some(PreferenceArrays {
                        loss,
                        beta: one(&mut rest)?,
                        reference: one(&mut rest)?,
                        rows: one(&mut rest)?,
                    }),
                },
                dropout_keys: take(&mut rest, batch.dropout_keys)?,
                weight: maybe(&mut rest, batch.weight)?,
            }),
        };
        let gathered = if layout.gathered {
            Some(take(&mut rest, layout.parameters)?)
        } else {
            None
        };
        let share = maybe(&mut rest, layout.share)?;
        let update = match &layout.update {
            None => None,
            Some(update) => Some(UpdateArguments {
                slots: take(&mut rest, update.slots)?,
                average: if update.average {
                    Some(take(&mut rest, layout.parameters)?)
                } else {
                    None
                },
                rates: {
                    let rates = take(&mut rest, Rates::COUNT)?;
                    Rates::from_arrays(rates.try_into().map_err(|_| missing())?)
                },
            }),
        };
        Ok(Self {
            parameters,
            batch,
            gathered,
            share,
            update,
        })
    }
}

fn scale(gradients: &mut [Array], factor: &Array) -> Result<()> {
    for gradient in gradients {
        *gradient = gradient.multiply(factor)?;
    }
    Ok(())
}

fn one(arrays: &mut impl Iterator<Item = Array>) -> Result<Array> {
    arrays.next().ok_or_else(|| missing().into())
}

fn maybe(arrays: &mut impl Iterator<Item = Array>, present: bool) -> Result<Option<Array>> {
    if present {
        one(arrays).map(Some)
    } else {
        Ok(None)
    }
}

fn take(arrays: &mut impl Iterator<Item = Array>, count: usize) -> Result<Vec<Array>> {
    (0..count).map(|_| one(arrays)).collect()
}

fn missing() -> Exception {
    Exception::custom("an array of the step is missing")
}
