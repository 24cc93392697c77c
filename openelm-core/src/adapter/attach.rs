//! Adapters on a loaded model: any number, selected, scaled, summed and removed without a change
//! of the model's weights.

use std::{collections::HashMap, path::PathBuf};

use super::{
    adapter::{Adapter, AdapterKind},
    init::each_linear,
};
use crate::{
    config::tensor_names::{EMBEDDING, HEAD},
    error::{Error, Result},
    model::{Model, Named, RowNorms, next_revision, row_squares},
    weights::Tensors,
};

impl Model {
    /// Adds `adapter` under `name` and makes it the only active one.
    ///
    /// # Errors
    /// [`Error::Adapter`] if it does not fit this model, [`Error::Option`] if the name is taken.
    pub fn add_adapter(&mut self, name: &str, adapter: &Adapter) -> Result<()> {
        if self.adapters.all.iter().any(|known| known.name == name) {
            return Err(Error::option(
                "adapter",
                format!("there is an adapter `{name}` already"),
            ));
        }
        let origin = PathBuf::from(name);
        adapter.check(self.config(), &origin)?;
        if adapter.kind == AdapterKind::Full {
            self.check_replaceable(adapter, &origin)?;
        }
        let mut weights = adapter.weights.clone();
        for weight in weights.values_mut() {
            *weight = weight.as_dtype(self.dtype().mlx())?;
        }
        mlx_rs::transforms::eval(weights.values())?;

        let mut modules = HashMap::new();
        let dtype = self.dtype();
        each_linear(self, |module_name, linear| {
            let Some(module) = adapter.modules.get(module_name) else {
                return Ok(());
            };
            let norms = match module.m {
                None => None,
                Some(_) => {
                    let (a, b) = module.factors(module_name);
                    let square = row_squares(&linear.matrix)?;
                    let norms = RowNorms::new(&square, &linear.matrix, &a, &b, dtype)?;
                    norms.eval()?;
                    Some(norms)
                }
            };
            modules.insert(module_name.to_owned(), (module.clone(), norms));
            Ok(())
        })?;
        self.adapters.all.push(Named {
            id: next_revision(),
            name: name.to_owned(),
            modules,
            weights,
            tied_head: adapter.tied_head,
        });
        self.set_adapters(&[(name, 1.0)])
    }

    /// Makes exactly these adapters active, each multiplied by its strength (1 as trained); their
    /// additions are summed. An empty list restores the base model. Costs only a few handles.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, a strength that is not a finite number, or a strength
    /// other than 1 for full fine-tuning, of which only one can be active.
    pub fn set_adapters(&mut self, active: &[(&str, f32)]) -> Result<()> {
        let wrong = |problem: String| Error::option("adapter", problem);
        let mut chosen = Vec::with_capacity(active.len());
        for &(name, strength) in active {
            let found = self.adapters.all.iter().find(|known| known.name == name);
            let Some(found) = found else {
                return Err(wrong(format!("there is no adapter `{name}`")));
            };
            if !strength.is_finite() {
                return Err(wrong(format!("the strength of `{name}` is {strength}")));
            }
            if !found.weights.is_empty() && strength != 1.0 {
                return Err(wrong(format!(
                    "`{name}` replaces weights: its strength is 1, not {strength}"
                )));
            }
            chosen.push((found.clone(), strength));
        }
        let mut full = chosen.iter().filter(|(named, _)| !named.weights.is_empty());
        let weights = full.next().map(|(named, _)| named.weights.clone());
        if let Some((second, _)) = full.next() {
            return Err(wrong(format!(
                "`{}` replaces weights, and so does another",
                second.name
            )));
        }
        // Until all parts are exchanged, the network is none of the known ones.
        self.adapters.revision = next_revision();
        self.exchange(weights.unwrap_or_default())?;

        let tied = self.config().share_input_output_layers();
        self.visit_linears(&mut |name, linear| {
            let is_tied_head = tied && name == HEAD;
            let source = if is_tied_head { EMBEDDING } else { name };
            let mut added = Vec::new();
            for (named, strength) in &chosen {
                if is_tied_head && !named.tied_head {
                    continue;
                }
                if let Some((module, norms)) = named.modules.get(source) {
                    added.push(module.low_rank(source, *strength, None, norms.as_ref())?);
                }
            }
            linear.set_adapters(added);
            Ok(())
        })?;
        let active = active.iter();
        self.adapters.active = active.map(|&(name, by)| (name.to_owned(), by)).collect();
        let set = chosen.iter();
        let set = set.map(|(named, by)| (named.id, by.to_bits())).collect();
        let known = self.adapters.revisions.entry(set);
        self.adapters.revision = *known.or_insert_with(next_revision);
        Ok(())
    }

    /// Removes the adapter `name`.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no adapter of that name.
    pub fn remove_adapter(&mut self, name: &str) -> Result<()> {
        let known = &self.adapters.all;
        let Some(index) = known.iter().position(|known| known.name == name) else {
            return Err(Error::option(
                "adapter",
                format!("there is no adapter `{name}`"),
            ));
        };
        let active = self.adapters.active.clone();
        let rest: Vec<(&str, f32)> = active
            .iter()
            .filter(|(active, _)| active != name)
            .map(|(active, strength)| (active.as_str(), *strength))
            .collect();
        self.set_adapters(&rest)?;
        let id = self.adapters.all.remove(index).id;
        let revisions = &mut self.adapters.revisions;
        revisions.retain(|set, _| set.iter().all(|(other, _)| *other != id));
        Ok(())
    }

    /// The names of the adapters, in the order of their addition.
    pub fn adapters(&self) -> Vec<&str> {
        let all = self.adapters.all.iter();
        all.map(|named| named.name.as_str()).collect()
    }

    /// The active adapters and their strengths.
    pub fn active_adapters(&self) -> &[(String, f32)] {
        &self.adapters.active
    }

    /// Restores the model's own weights, then replaces them by `weights`.
    fn exchange(&mut self, weights: Tensors) -> Result<()> {
        let mut own = std::mem::take(&mut self.adapters.replaced);
        let mut replaced = HashMap::new();
        self.replace_weights(&mut |name, current| {
            let original = own.remove(name);
            let new = weights.get(name);
            if new.is_some() {
                let original = original.clone().unwrap_or_else(|| current.clone());
                replaced.insert(name.to_owned(), original);
            }
            new.cloned().or(original)
        })?;
        self.adapters.replaced = replaced;
        Ok(())
    }

    fn check_replaceable(&self, adapter: &Adapter, origin: &std::path::Path) -> Result<()> {
        let mut missing: Vec<&String> = adapter.weights.keys().collect();
        self.clone().replace_weights(&mut |name, _| {
            missing.retain(|expected| *expected != name);
            None
        })?;
        match missing.first() {
            None => Ok(()),
            Some(name) => Err(Error::adapter(
                origin,
                format!("replaces `{name}`, which is quantised in this model"),
            )),
        }
    }
}
