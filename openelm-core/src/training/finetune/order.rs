//! The order of rows in batches.

use super::{options::FinetuneOptions, training_data::TrainingData};
use crate::{
    data::{
        batch::{BatchPlan, MlxLmOrder, Padding, mlx_lm_batches},
        dataset::Example,
    },
    error::Result,
};

/// The order of a run's batches.
#[derive(Debug)]
pub(super) struct Order {
    kind: Kind,
    /// The epoch of `batches`.
    epoch: Option<u64>,
    batches: Vec<Vec<usize>>,
    per_epoch: usize,
    validation: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Kind {
    Plan(BatchPlan),
    /// mlx-lm's order: one stream of random numbers for training and validation.
    MlxLm {
        order: Box<MlxLmOrder>,
        train: Vec<Vec<usize>>,
        valid: Vec<Vec<usize>>,
    },
}

impl Order {
    pub(super) fn new(
        train: &TrainingData,
        valid: Option<&TrainingData>,
        options: &FinetuneOptions,
    ) -> Result<Self> {
        let (size, seed) = (options.batch_size, options.trainer.seed);
        let lengths = lengths(train);
        let of_valid = valid.map(self::lengths).unwrap_or_default();
        if options.mlx_lm_compat {
            let one_key = |lengths: &[usize]| mlx_lm_batches(&vec![1; lengths.len()], size);
            let train = one_key(&lengths)?;
            let valid = if of_valid.is_empty() {
                Vec::new()
            } else {
                one_key(&of_valid)?
            };
            return Ok(Self {
                epoch: None,
                batches: Vec::new(),
                per_epoch: train.len(),
                validation: Vec::new(),
                kind: Kind::MlxLm {
                    order: Box::new(MlxLmOrder::new(seed as u32)),
                    train,
                    valid,
                },
            });
        }
        let pad_to = Padding::default().pad_to;
        let plan = BatchPlan::new(&lengths, size, pad_to, seed)?;
        let rows: Vec<usize> = (0..of_valid.len()).collect();
        Ok(Self {
            epoch: None,
            batches: Vec::new(),
            per_epoch: plan.batches_per_epoch(),
            // The same rows each time, in the order of the file.
            validation: rows.chunks(size).map(<[usize]>::to_vec).collect(),
            kind: Kind::Plan(plan),
        })
    }

    pub(super) fn batches_per_epoch(&self) -> usize {
        self.per_epoch
    }

    /// The rows of `iteration`, counted from 1; iterations must be requested in order.
    #[expect(
        clippy::expect_used,
        reason = "a plan gives as many batches as it counts"
    )]
    pub(super) fn next(&mut self, iteration: u64) -> Vec<usize> {
        self.before(iteration);
        let place = (iteration - 1) % self.per_epoch.max(1) as u64;
        let rows = self.batches.get(place as usize);
        rows.expect("an epoch has `per_epoch` batches").clone()
    }

    /// Makes the batches of the epoch: mlx-lm draws a batch before it validates.
    pub(super) fn before(&mut self, iteration: u64) {
        let epoch = (iteration - 1) / self.per_epoch.max(1) as u64;
        if self.epoch == Some(epoch) {
            return;
        }
        self.epoch = Some(epoch);
        self.batches = match &mut self.kind {
            Kind::Plan(plan) => plan.epoch(epoch),
            Kind::MlxLm { order, train, .. } => order.pass(train),
        };
    }

    /// The rows of a validation's batches.
    pub(super) fn validation(&mut self) -> Vec<Vec<usize>> {
        match &mut self.kind {
            Kind::Plan(_) => self.validation.clone(),
            Kind::MlxLm { order, valid, .. } => order.pass(valid),
        }
    }

    /// Repeats the random draws of this iteration.
    pub(super) fn replay(&mut self, iteration: u64, validated_before: bool) {
        if let Kind::MlxLm { .. } = self.kind {
            self.before(iteration);
            if validated_before {
                self.validation();
            }
        }
    }
}

/// Lengths of the rows; the length of a pair is its longer answer's length.
pub(super) fn lengths(data: &TrainingData) -> Vec<usize> {
    match data {
        TrainingData::Examples(examples) => examples.iter().map(|e| e.tokens.len()).collect(),
        TrainingData::Pairs(pairs) => {
            let longer = |a: &Example, b: &Example| a.tokens.len().max(b.tokens.len());
            pairs
                .iter()
                .map(|p| longer(&p.chosen, &p.rejected))
                .collect()
        }
    }
}
