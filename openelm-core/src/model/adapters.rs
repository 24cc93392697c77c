//! The adapters of a model, as arrays by matrix name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use mlx_rs::{Array, error::Exception};

use super::lora::{Dropout, LowRank, RowNorms};
use crate::{config::tensor_names::EMBEDDING, error::Result};

/// The adapters of one model.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) all: Vec<Named>,
    pub(crate) active: Vec<(String, f32)>,
    /// The model's own weights that a fully fine-tuned adapter currently replaces.
    pub(crate) replaced: HashMap<String, Array>,
    /// Unique for each model and each set of active adapters with their strengths; keys and values
    /// of one revision are those of the same network. Clones share it.
    pub(crate) revision: u64,
    /// The revisions of earlier sets, by the ids of the adapters and the bits of their strengths.
    pub(crate) revisions: HashMap<Vec<(u64, u32)>, u64>,
}

impl Default for Attached {
    fn default() -> Self {
        let revision = next_revision();
        Self {
            all: Vec::new(),
            active: Vec::new(),
            replaced: HashMap::new(),
            revision,
            revisions: HashMap::from([(Vec::new(), revision)]),
        }
    }
}

pub(crate) fn next_revision() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// An adapter in the model's dtype.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// Unique, also among adapters of the same name.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) modules: HashMap<String, (Module, Option<RowNorms>)>,
    pub(crate) weights: BTreeMap<String, Array>,
    pub(crate) tied_head: bool,
}

/// The low-rank addition to one matrix.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) lora_a: Array,
    pub(crate) lora_b: Array,
    /// DoRA's magnitudes.
    pub(crate) m: Option<Array>,
    pub(crate) scale: f32,
}

impl Module {
    /// The addition to the matrix `name`, multiplied by `strength`. DoRA requires its row
    /// `norms`.
    pub(crate) fn low_rank(
        &self,
        name: &str,
        strength: f32,
        dropout: Option<Dropout>,
        norms: Option<&RowNorms>,
    ) -> Result<LowRank> {
        let (a, b) = self.factors(name);
        let added = LowRank::lora(a, b, self.scale * strength, dropout);
        match (&self.m, norms) {
            (Some(m), Some(norms)) => added.with_magnitude(m, norms),
            (None, _) => Ok(added),
            (Some(_), None) => {
                let problem = format!("DoRA of `{name}`: the norms of the rows are missing");
                Err(Exception::custom(problem).into())
            }
        }
    }

    /// `A` `[in, r]` and `B` `[r, out]` of the matrix `name`.
    pub(crate) fn factors(&self, name: &str) -> (Array, Array) {
        if name == EMBEDDING {
            (self.lora_b.t(), self.lora_a.t())
        } else {
            (self.lora_a.clone(), self.lora_b.clone())
        }
    }
}
