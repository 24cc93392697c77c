//! New adapters, initialised as in CoreNet and PEFT (`lora.py`, `reset_lora_parameters`).

use std::collections::BTreeMap;

use mlx_rs::{
    Array,
    ops::zeros,
    random::{self, RandomState},
};

use super::{
    adapter::{Adapter, AdapterKind, LoraOptions},
    targets::TargetModules,
};
use crate::{
    config::tensor_names::EMBEDDING,
    error::{Error, Result},
    mlx::memory,
    model::{Linear, Model, Module, row_squares},
    weights::Tensors,
};

impl Adapter {
    /// A LoRA or DoRA adapter that leaves the model unchanged. For a projection `lora_a` is uniform
    /// in ±1/√in (PyTorch's Kaiming-uniform with a = √5) and `lora_b` zero; for the embedding
    /// `lora_a` is zero and `lora_b` N(0, 1); DoRA's magnitudes are the norms of the matrix's rows.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range or matches nothing.
    pub fn lora(
        model: &Model,
        targets: &TargetModules,
        options: &LoraOptions,
        seed: u64,
    ) -> Result<Self> {
        options.check()?;
        let config = model.config();
        let matrices = targets.matrices(config)?;
        options.check_size(&matrices)?;
        let mut state = RandomState::with_seed(seed)?;
        let mut modules = BTreeMap::new();
        for (name, [out, input]) in matrices {
            let rank = options.rank as i32;
            let (out, input) = (out as i32, input as i32);
            let key = state.next_key()?;
            let (lora_a, lora_b) = if name == EMBEDDING {
                let b = random::normal::<f32>(&[rank, input], None, None, &key)?;
                (zeros::<f32>(&[out, rank])?, b)
            } else {
                let bound = (input as f32).powf(-0.5);
                let a = random::uniform::<_, f32>(-bound, bound, &[input, rank], &key)?;
                (a, zeros::<f32>(&[rank, out])?)
            };
            modules.insert(
                name,
                Module {
                    lora_a,
                    lora_b,
                    m: None,
                    scale: options.scale,
                },
            );
        }
        if options.dora {
            each_linear(model, |name, linear| {
                if let Some(module) = modules.get_mut(name) {
                    module.m = Some(row_squares(&linear.matrix)?.sqrt()?);
                }
                Ok(())
            })?;
        }
        let adapter = Self {
            kind: if options.dora {
                AdapterKind::Dora
            } else {
                AdapterKind::Lora
            },
            modules,
            weights: Tensors::new(),
            dropout: options.dropout,
            tied_head: options.tied_head,
        };
        mlx_rs::transforms::eval(adapter.tensors().values())?;
        Ok(adapter)
    }

    /// The weights of `model` that full fine-tuning trains, in f32.
    ///
    /// # Errors
    /// [`Error::Option`] if `targets` matches nothing or a quantised matrix.
    pub fn full(model: &Model, targets: &TargetModules) -> Result<Self> {
        let names = targets.weights(model.config())?;
        let mut weights = Tensors::new();
        let mut copy = model.clone();
        copy.replace_weights(&mut |name, weight: &Array| {
            if names.iter().any(|target| target == name) {
                weights.insert(name.to_owned(), weight.clone());
            }
            None
        })?;
        if let Some(name) = names.iter().find(|name| !weights.contains_key(*name)) {
            return Err(Error::option(
                "fine_tune_type",
                format!("`{name}` is quantised; train an adapter, or dequantise first"),
            ));
        }
        for weight in weights.values_mut() {
            *weight = weight.as_dtype(mlx_rs::Dtype::Float32)?;
        }
        Ok(Self {
            kind: AdapterKind::Full,
            modules: BTreeMap::new(),
            weights,
            dropout: 0.0,
            tied_head: false,
        })
    }
}

impl LoraOptions {
    fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::at_least("rank", 1, 0));
        }
        if !self.scale.is_finite() {
            let problem = format!("expected a number, found {}", self.scale);
            return Err(Error::option("scale", problem));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let problem = format!("expected 0 or more and below 1, found {}", self.dropout);
            return Err(Error::option("dropout", problem));
        }
        Ok(())
    }

    /// Refuses a rank whose factors MLX cannot address, or do not fit into memory.
    fn check_size(&self, matrices: &[(String, [usize; 2])]) -> Result<()> {
        let sides = matrices.iter().flat_map(|(_, sides)| sides);
        let widest = sides.clone().max().copied().unwrap_or(1).max(1);
        let most = i32::MAX as usize / widest;
        if self.rank > most {
            let problem = format!("expected at most {most}, found {}", self.rank);
            return Err(Error::option("rank", problem));
        }
        // The factors and their gradients, in f32.
        let bytes = sides.map(|&side| 8 * side as u128).sum::<u128>() * self.rank as u128;
        memory::check_fits("rank", self.rank, bytes)
    }
}

/// Calls `visit` with every matrix of `model`, without changing it.
pub(crate) fn each_linear(
    model: &Model,
    mut visit: impl FnMut(&str, &Linear) -> Result<()>,
) -> Result<()> {
    model
        .clone()
        .visit_linears(&mut |name, linear| visit(name, linear))
}
