//! Preferences: log-probabilities of the reference model, stored for resume.

use mlx_rs::Array;

use super::{finetune::Finetune, training_data::TrainingData};
use crate::{
    error::{Error, Result},
    weights::{Tensors, tensor_file},
};

const REFERENCE: &str = "reference.safetensors";

impl Finetune {
    /// Measures the log-probability of every answer before the first step. A resumed run reads its
    /// file; for a new run, a file there is of another run.
    pub(super) fn measure_reference(&mut self, is_resumed: bool) -> Result<()> {
        let TrainingData::Pairs(pairs) = &self.train else {
            return Ok(());
        };
        let path = self.run.folder().join(REFERENCE);
        let names = ["chosen", "rejected"];
        if is_resumed && path.is_file() {
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
        tensor_file::save(&path, &tensors, ("format", "mlx"))?;
        self.reference = reference;
        Ok(())
    }
}
