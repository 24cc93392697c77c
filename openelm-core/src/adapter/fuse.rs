//! Fusing an adapter into the weights of its base model.

use std::path::Path;

use mlx_rs::{
    Array, Dtype,
    ops::{matmul, maximum},
};

use super::adapter::Adapter;
use crate::{
    config::{Config, tensor_names::EMBEDDING},
    error::{Error, Result},
    model::value_at_fault,
};

impl Adapter {
    /// True if the adapter changes the tensor `name`.
    pub(crate) fn changes(&self, name: &str) -> bool {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        self.modules.contains_key(stem) || self.weights.contains_key(name)
    }

    /// The tensor `name` with the adapter added, f32; `weight` is f32.
    pub(crate) fn fused(&self, name: &str, weight: Array) -> Result<Array> {
        if let Some(own) = self.weights.get(name) {
            return Ok(own.as_dtype(Dtype::Float32)?);
        }
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let Some(module) = self.modules.get(stem) else {
            return Ok(weight);
        };
        let (a, b) = module.factors(stem);
        let (a, b) = (a.as_dtype(Dtype::Float32)?, b.as_dtype(Dtype::Float32)?);
        let delta = matmul(b.t(), a.t())?.multiply(Array::from_f32(module.scale))?;
        let sum = weight.add(delta)?;
        let Some(m) = &module.m else {
            return Ok(sum);
        };
        let square = sum.square()?.sum_axis(-1, true)?;
        // A row of zeros stays one.
        let norm = maximum(square, Array::from_f32(f32::MIN_POSITIVE))?.sqrt()?;
        Ok(sum.multiply(m.expand_dims(-1)?.divide(norm)?)?)
    }

    /// Refuses an adapter that weights cannot represent, that is for another model, or that holds a
    /// number that is not finite.
    pub(crate) fn check_fusable(&self, config: &Config, origin: &Path) -> Result<()> {
        self.check(config, origin)?;
        for (name, tensor) in self.tensors() {
            if let Some(value) = value_at_fault(&tensor)? {
                let problem = format!("tensor `{name}` holds {value}");
                return Err(Error::adapter(origin, problem));
            }
        }
        let tied = config.share_input_output_layers();
        if tied && self.modules.contains_key(EMBEDDING) && !self.tied_head {
            return Err(Error::adapter(
                origin,
                "it adapts the look-up of the embedding and not the head, which are one \
                 tensor in this model; keep it an adapter, or train it with tied_head",
            ));
        }
        Ok(())
    }
}
