//! Updates and losses of a trainer whose parameters are kept in parts by the processes of a group.
//!
//! A step goes through the layers as gradient checkpointing does. All processes take part in each
//! batch, because they gather the parameters together: a process without targets uses a batch whose
//! gradient has the factor 0.

use std::rc::Rc;

use mlx_rs::{Array, transforms};

use super::{
    batch_arrays::BatchArrays,
    gradient::{LayerParameters, layer_by_layer, loss_layer_by_layer},
    group::Group,
    loss::{self, Objective},
    sharding::Sharding,
    step_function::{Arguments, StepFunction},
    trainer::{Step, Trainer, no_targets},
    trainer_options::TrainerOptions,
};
use crate::{
    cancel::CancelHandle, data::batch::Batch, error::Result, gate::pause_point, mlx::runtime,
};

/// The parts of the parameters in a pass over a batch.
struct ShardedParameters<'a> {
    sharding: &'a Sharding,
    parts: &'a [Array],
    /// Factor of this process's gradients.
    weight: f32,
}

impl LayerParameters for ShardedParameters<'_> {
    fn places(&self) -> Result<Vec<Array>> {
        self.sharding.placeholders()
    }

    fn chosen(&self, indices: &[usize]) -> Result<Vec<Array>> {
        let parts: Vec<&Array> = indices.iter().filter_map(|&i| self.parts.get(i)).collect();
        self.sharding.whole(indices, &parts)
    }

    fn gradients(&self, indices: &[usize], gradients: Vec<Array>) -> Result<Vec<Array>> {
        let weight = Array::from_f32(self.weight);
        let weighted = gradients.iter().map(|gradient| gradient.multiply(&weight));
        let weighted = weighted.collect::<Result<Vec<_>, _>>()?;
        drop(gradients);
        self.sharding.sum(indices, weighted)
    }

    #[expect(
        clippy::expect_used,
        reason = "the indices are those of the parameters"
    )]
    fn zeros(&self, index: usize) -> Result<Array> {
        let part = self.parts.get(index).expect("the parameter exists");
        Ok(mlx_rs::ops::zeros_like(part)?)
    }
}

impl Trainer {
    /// Keeps this process's part of the parameters and of the optimizer's state only, before the
    /// first step. All processes of `group` must call it with the same parameters, and then the
    /// same methods with the same numbers of batches.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for Adafactor.
    pub(crate) fn shard(&mut self, group: Rc<Group>) -> Result<()> {
        let sharding = Sharding::new(group, &self.parameters, &self.options.optimizer)?;
        for (index, parameter) in self.parameters.iter_mut().enumerate() {
            *parameter = sharding.part(index, parameter)?;
        }
        for (index, average) in self.average.iter_mut().flatten().enumerate() {
            *average = sharding.part(index, average)?;
        }
        let slots = self.optimizer.named();
        let slots = slots.map(|(index, _, whole)| sharding.part(index, whole));
        let slots = slots.collect::<Result<_>>()?;
        self.optimizer.replace(slots);
        self.compiled = None;
        self.copies = None;
        // Gradients are clipped by their norm over all processes.
        let update = TrainerOptions {
            clip_norm: None,
            ..self.options.clone()
        };
        self.function = Rc::new(StepFunction::new(
            Rc::clone(&self.trainable),
            &update,
            false,
        ));
        self.sharding = Some(Rc::new(sharding));
        Ok(())
    }

    /// [`update`](Self::update) of a sharded trainer.
    pub(super) fn sharded_update(
        &mut self,
        batches: &[Batch],
        sharding: &Sharding,
    ) -> Result<Step> {
        let group = sharding.group();
        let (mut totals, mut gradients) = ([0.0; 4], None::<Vec<Array>>);
        for (nth, batch) in (0_u64..).zip(batches) {
            if !group.any(batch.target_count() > 0)? {
                continue;
            }
            pause_point(&CancelHandle::default(), runtime::synchronize)?;
            let weight = batch.target_count() as f32;
            let filler = filler();
            let batch = if weight > 0.0 { batch } else { &filler };
            let pass = ShardedParameters {
                sharding,
                parts: &self.parameters,
                weight,
            };
            let objective = Objective::Predict {
                z_loss: self.options.z_loss,
                label_smoothing: self.options.label_smoothing,
            };
            let keys = self.trainable.dropout_keys(self.dropout_seed(nth))?;
            let arrays = BatchArrays::new(batch);
            let found = layer_by_layer(&self.trainable, &pass, &keys, &arrays, objective)?;
            let losses = [loss::read(&found.loss)?, loss::read(&found.z_loss)?];
            if weight > 0.0 {
                for (total, term) in totals.iter_mut().zip(self.reported(batch, losses)) {
                    *total += term;
                }
            }
            gradients = Some(match gradients.take() {
                None => found.gradients,
                Some(sums) => {
                    let sums = sums.iter().zip(&found.gradients).map(|(a, b)| a.add(b));
                    let sums = sums.collect::<Result<Vec<_>, _>>()?;
                    transforms::eval(&sums)?;
                    sums
                }
            });
        }
        group.sum_numbers(&mut totals)?;
        let [loss, z_loss, targets, weights] = totals;
        let Some(gradients) = gradients.filter(|_| targets > 0.0) else {
            return Err(no_targets());
        };
        let mut share = 1.0 / targets;
        let mut gradient_norm = None;
        if let Some(most) = self.options.clip_norm {
            let norm = share * norm_of_all(group, &gradients)?;
            share *= (most / (norm + 1e-6)).min(1.0);
            gradient_norm = Some(norm);
        }
        let learning_rate = self.options.schedule.at(self.iteration);
        let step = Step {
            iteration: self.iteration + 1,
            loss: loss / weights,
            z_loss: z_loss / weights,
            targets: targets as usize,
            learning_rate,
            gradient_norm,
        };
        self.check_step(step, None)?;
        let arguments = Arguments {
            parameters: self.parameters.clone(),
            batch: None,
            gathered: Some(gradients),
            share: Some(Array::from_f32(share)),
            update: Some(self.update_arguments(learning_rate)),
        };
        self.evaluated(arguments)?;
        self.iteration += 1;
        Ok(step)
    }

    /// [`evaluate_sum`](Self::evaluate_sum) over the batches of all processes, in each of them.
    pub(super) fn sharded_evaluate_sum(
        &self,
        batches: impl Iterator<Item = Batch>,
        sharding: &Sharding,
    ) -> Result<(f64, usize)> {
        let group = sharding.group();
        let mut batches = batches.filter(|batch| batch.target_count() > 0);
        let mut sums = [0.0, 0.0];
        loop {
            let next = batches.next();
            if !group.any(next.is_some())? {
                break;
            }
            let weight = next.as_ref().map_or(0, Batch::target_count) as f32;
            let pass = ShardedParameters {
                sharding,
                parts: &self.parameters,
                weight,
            };
            let arrays = BatchArrays::new(&next.unwrap_or_else(filler));
            let loss = loss_layer_by_layer(&self.trainable, &pass, &arrays, Objective::PLAIN)?;
            sums[0] += loss::read(&loss)? * weight;
            sums[1] += weight;
        }
        group.sum_numbers(&mut sums)?;
        let [sum, count] = sums;
        Ok((f64::from(sum), count as usize))
    }
}

/// A batch with one target.
fn filler() -> Batch {
    Batch::packed(&[(&[1, 2], &[0])], 1)
}

/// The norm of the gradients whose parts the processes have in `parts`.
fn norm_of_all(group: &Group, parts: &[Array]) -> Result<f32> {
    let mut square = 0.0;
    for part in parts {
        // Per row: on a CPU, MLX's sum of millions of numbers at once is off by a percent.
        let rows = part.square()?.sum_axis(-1, false)?;
        square += f64::from(rows.sum(false)?.try_item_exact::<f32>()?);
    }
    let mut square = [square as f32];
    group.sum_numbers(&mut square)?;
    Ok(square[0].sqrt())
}
