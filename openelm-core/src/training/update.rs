//! One update from several batches, of one process or of a group: the gradient of the mean loss
//! over all their targets, independent of their division.

use std::path::Path;

use mlx_rs::{
    Array,
    ops::{concatenate, split_at_indices, zeros_like},
    transforms,
};

use super::{
    group::Group,
    step_function::Arguments,
    trainer::{Step, Trainer, no_targets},
};
use crate::{
    cancel::CancelHandle, data::batch::Batch, error::Result, gate::pause_point, mlx::runtime,
    seed::derive_seed,
};

/// Numbers per transfer to the group: 32 MiB.
const BUCKET: usize = 8 << 20;

/// Sums over the targets of several batches.
#[derive(Default)]
struct Sums {
    /// The sums of [`Trainer::reported`].
    totals: [f32; 4],
    /// `None` without a target.
    gradients: Option<Vec<Array>>,
}

impl Trainer {
    /// Trains on the `batches` of all processes of `group` together, in one update.
    /// All processes must call it the same number of times, and obtain the same weights.
    ///
    /// The step's loss is the mean over all targets; its target count includes all processes. The
    /// iteration, which is the number of these updates, gives the learning rate.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if no batch of any process has a target,
    /// [`Error::Diverged`](crate::Error::Diverged) if the loss or the gradient is not finite,
    /// [`Error::Mlx`](crate::Error::Mlx) if memory runs out.
    pub fn update(&mut self, batches: &[Batch], group: Option<&Group>) -> Result<Step> {
        self.unless_failed(|trainer| trainer.update_with(batches, group))
    }

    fn update_with(&mut self, batches: &[Batch], group: Option<&Group>) -> Result<Step> {
        if let Some(sharding) = self.sharding.clone() {
            return self.sharded_update(batches, &sharding);
        }
        if let ([batch], None) = (batches, group) {
            if batch.target_count() == 0 {
                return Err(no_targets());
            }
            let learning_rate = self.options.schedule.at(self.iteration);
            let arguments = Arguments {
                update: Some(self.update_arguments(learning_rate)),
                ..self.nth_arguments(0, batch, None)?
            };
            let results = self.evaluated(arguments)?;
            self.iteration += 1;
            let step = self.report(&results, learning_rate, batch)?;
            let pads = self.corenet_pads(batch);
            return Ok(Step {
                loss: step.loss + pads,
                z_loss: step.z_loss + pads,
                ..step
            });
        }
        let sums = self.sum_batches(batches)?;
        let mut gradients = match sums.gradients {
            Some(gradients) => gradients,
            // The other processes may have targets.
            None if group.is_some() => {
                let zeros = self.parameters.iter().map(zeros_like);
                zeros.collect::<Result<_, _>>()?
            }
            None => return Err(no_targets()),
        };
        let mut totals = sums.totals;
        if let Some(group) = group {
            group.sum_numbers(&mut totals)?;
            sum_over_group(group, &mut gradients)?;
        }
        let [loss, z_loss, targets, weights] = totals;
        if targets == 0.0 {
            return Err(no_targets());
        }
        let learning_rate = self.options.schedule.at(self.iteration);
        let arguments = Arguments {
            parameters: self.parameters.clone(),
            batch: None,
            gathered: Some(gradients),
            share: Some(Array::from_f32(1.0 / targets)),
            update: Some(self.update_arguments(learning_rate)),
        };
        let results = self.evaluated(arguments)?;
        self.iteration += 1;
        let step = Step {
            iteration: self.iteration,
            loss: loss / weights,
            z_loss: z_loss / weights,
            targets: targets as usize,
            learning_rate,
            gradient_norm: results.gradient_norm()?,
        };
        self.check_step(step, batches.first())
    }

    /// Copies the state of rank 0 of `group`; a sharded trainer restores its parts of the state in
    /// `path`, which rank 0 reads.
    ///
    /// # Errors
    /// As [`update`](Self::update), and for `path` as [`restore`](Self::restore).
    pub(crate) fn follow(&mut self, group: &Group, path: &Path) -> Result<()> {
        if let Some(sharding) = self.sharding.clone() {
            return self.restore_sharded(path, &sharding);
        }
        let counters = [self.iteration, self.optimizer.updates()];
        let [iteration, updates] = group.counters_from_first(counters)?;
        let mut arrays: Vec<Array> = self.state().cloned().collect();
        if group.rank() != 0 {
            for array in &mut arrays {
                *array = zeros_like(&*array)?;
            }
        }
        sum_over_group(group, &mut arrays)?;
        transforms::eval(&arrays)?;
        // In the order of `state`.
        let places = self
            .parameters
            .iter_mut()
            .chain(self.optimizer.arrays_mut())
            .chain(self.average.iter_mut().flatten());
        for (place, array) in places.zip(arrays) {
            *place = array;
        }
        self.iteration = iteration;
        self.optimizer.set_updates(updates);
        self.cast_parameters()
    }

    /// The arguments for the gradients of the batch `nth` of an update.
    fn nth_arguments(&self, nth: u64, batch: &Batch, weight: Option<f32>) -> Result<Arguments> {
        let seed = self.dropout_seed(nth);
        Ok(Arguments {
            parameters: self.parameters.clone(),
            batch: Some(self.batch_arguments(batch, None, seed, weight)?),
            gathered: None,
            share: None,
            update: None,
        })
    }

    /// The seed of the dropout for the batch `nth` of an update.
    pub(super) fn dropout_seed(&self, nth: u64) -> u64 {
        derive_seed(derive_seed(self.options.seed, self.iteration), nth)
    }

    /// The part of CoreNet's z-loss of a batch that is of positions without a target, whose logits
    /// it multiplies by 0 (`cross_entropy.py`); 0 unless `corenet_losses` is set.
    fn corenet_pads(&self, batch: &Batch) -> f32 {
        let Some(length) = self.options.corenet_losses else {
            return 0.0;
        };
        let targets = batch.target_count();
        let pads = batch.batch.saturating_mul(length).saturating_sub(targets);
        let square = (self.trainable.vocab_size() as f32).ln().powi(2);
        self.options.z_loss * square * pads as f32 / targets.max(1) as f32
    }

    /// The terms of a batch in the reported sums: of the loss, the z-loss, the targets, and the
    /// weights of the losses.
    pub(super) fn reported(&self, batch: &Batch, [loss, z_loss]: [f32; 2]) -> [f32; 4] {
        let pads = self.corenet_pads(batch);
        let targets = batch.target_count() as f32;
        let weight = match self.options.corenet_losses {
            Some(_) => batch.batch as f32,
            None => targets,
        };
        [
            (loss + pads) * weight,
            (z_loss + pads) * weight,
            targets,
            weight,
        ]
    }

    fn sum_batches(&mut self, batches: &[Batch]) -> Result<Sums> {
        let mut sums = Sums::default();
        for (nth, batch) in (0_u64..).zip(batches) {
            if batch.target_count() == 0 {
                continue;
            }
            // The gradients of the batch before are evaluated.
            pause_point(&CancelHandle::default(), runtime::synchronize)?;
            let weight = batch.target_count() as f32;
            let arguments = Arguments {
                gathered: sums.gradients.take(),
                ..self.nth_arguments(nth, batch, Some(weight))?
            };
            // Evaluated per batch, so that only one batch's activations exist.
            let results = self.evaluated(arguments)?;
            let terms = self.reported(batch, results.losses()?);
            for (sum, term) in sums.totals.iter_mut().zip(terms) {
                *sum += term;
            }
            sums.gradients = results.gradients;
        }
        Ok(sums)
    }
}

/// Replaces `gradients` by their sums over the processes of `group`, many at a time.
fn sum_over_group(group: &Group, gradients: &mut [Array]) -> Result<()> {
    let mut rest = gradients;
    while !rest.is_empty() {
        let mut size = 0;
        let count = rest.iter().take_while(|gradient| {
            let first = size == 0;
            size += gradient.size();
            first || size <= BUCKET
        });
        let count = count.count();
        let (bucket, others) = rest.split_at_mut(count);
        let flat = bucket.iter().map(|gradient| gradient.reshape(&[-1]));
        let flat = flat.collect::<Result<Vec<_>, _>>()?;
        let summed = group.all_sum(&concatenate(&flat, 0)?)?;
        let ends = bucket.iter().scan(0, |end, gradient| {
            *end += gradient.size() as i32;
            Some(*end)
        });
        let ends: Vec<i32> = ends.take(count.saturating_sub(1)).collect();
        let parts = split_at_indices(&summed, &ends, 0)?;
        for (gradient, part) in bucket.iter_mut().zip(parts) {
            *gradient = part.reshape(gradient.shape())?;
        }
        rest = others;
    }
    Ok(())
}
