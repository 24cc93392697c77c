//! Preferences: log-probabilities of the reference model, stored for resume.

use mlx_rs::{Array, Dtype, ops::indexing::IndexOp};

use super::{finetune::Finetune, training_data::TrainingData};
use crate::{
    adapter::Adapter,
    cancel::CancelHandle,
    data::Fingerprint,
    error::{Error, Result, RunDifference},
    gate::pause_point,
    weights::{Tensors, tensor_file},
};

pub(super) const REFERENCE: &str = "reference.safetensors";
/// Metadata key of the adapter before the first step, which is a part of the reference model.
const START: &str = "start_from";
/// Values of a weight that identify it.
const SAMPLE: i32 = 64;

impl Finetune {
    /// Measures the log-probability of every answer before the first step. A resumed run reads its
    /// file; for a new run, a file there is of another run.
    pub(super) fn measure_reference(&mut self, is_resumed: bool) -> Result<()> {
        let TrainingData::Pairs(pairs) = &self.train else {
            return Ok(());
        };
        let path = self.run.folder().join(REFERENCE);
        let names = ["chosen", "rejected"];
        let start = start(&self.trainer.adapter())?;
        if is_resumed && path.is_file() {
            // An older version did not store the start.
            if let Ok(expected) = tensor_file::metadata(&path, START)
                && expected != start
            {
                let option = "start_from".to_owned();
                return Err(Error::OtherRun {
                    path,
                    differences: vec![RunDifference {
                        option,
                        expected,
                        found: start,
                    }],
                });
            }
            let tensors = tensor_file::load(&path)?;
            let read = |name: &str| match tensors.get(name) {
                Some(sums) if sums.size() == pairs.len() => Ok(sums.to_vec_exact::<f32>()?),
                _ => Err(Error::Checkpoint {
                    path: path.clone(),
                    problem: format!("`{name}` does not have {} pairs", pairs.len()),
                }),
            };
            let sums = read(names[0])?.into_iter().zip(read(names[1])?);
            self.reference = sums.map(|(chosen, rejected)| [chosen, rejected]).collect();
            return Ok(());
        }
        let all: Vec<usize> = (0..pairs.len()).collect();
        let mut reference = Vec::with_capacity(pairs.len());
        for rows in all.chunks(self.options.batch_size) {
            let batch = self.options.batch(&self.train, rows);
            pause_point(&CancelHandle::default(), || Ok(()))?;
            let sums = self.trainer.log_probabilities(&batch)?;
            let (chosen, rejected) = sums.split_at(rows.len());
            reference.extend(chosen.iter().zip(rejected).map(|(&c, &r)| [c, r]));
        }
        let side = |i: usize| -> Vec<f32> { reference.iter().map(|sums| sums[i]).collect() };
        let named = names.iter().enumerate().map(|(i, name)| {
            let sums = Array::from_slice(&side(i), &[reference.len() as i32]);
            ((*name).to_owned(), sums)
        });
        let tensors: Tensors = named.collect();
        tensor_file::save(&path, &tensors, (START, &start))?;
        self.reference = reference;
        Ok(())
    }
}

/// Identifies a new adapter, which is zero, or a trained one. `lora_a` is left out: devices round
/// its random values differently.
fn start(adapter: &Adapter) -> Result<String> {
    let mut hash = Fingerprint::new();
    let mut is_zero = true;
    let mut add = |array: &Array| -> Result<()> {
        for value in array.as_dtype(Dtype::Float32)?.to_vec_exact::<f32>()? {
            is_zero &= value == 0.0;
            hash.bytes(&value.to_le_bytes());
        }
        Ok(())
    };
    for module in adapter.modules.values() {
        add(&module.lora_b)?;
    }
    for weight in adapter.weights.values() {
        let values = weight.reshape(&[-1])?;
        add(&values.index(..SAMPLE.min(values.dim(0))))?;
    }
    Ok(if is_zero {
        "a new adapter".to_owned()
    } else {
        format!("weights with hash {hash}")
    })
}
