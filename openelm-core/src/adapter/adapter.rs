//! An adapter as tensors by checkpoint name, and its options.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use mlx_rs::Array;

use crate::{
    config::{
        Config,
        tensor_names::{EMBEDDING, HEAD, weight},
    },
    error::{Error, Result},
    model::Module,
    weights::Tensors,
};

/// The kind of fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank additions (arXiv 2106.09685).
    Lora,
    /// Low-rank additions and trained magnitudes of the matrices' rows (arXiv 2402.09353).
    Dora,
    /// Full fine-tuning: the weights themselves are trained.
    Full,
}

/// Options of a LoRA or DoRA adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraOptions {
    /// Width of the low-rank product. Default 8.
    pub rank: usize,
    /// Factor of the product. Default 20, as in mlx-lm. In PEFT and CoreNet it is `alpha / rank`,
    /// see [`scale_of`](Self::scale_of).
    pub scale: f32,
    /// Dropout probability of the adapter's input during training, below 1. Default 0.
    pub dropout: f32,
    /// Train the magnitudes of the rows (DoRA). Default off.
    pub dora: bool,
    /// If the embedding is adapted and tied to the head, adapt the head too, as in mlx-lm.
    /// Default off, as in CoreNet and PEFT: look-up only.
    pub tied_head: bool,
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self {
            rank: 8,
            scale: 20.0,
            dropout: 0.0,
            dora: false,
            tied_head: false,
        }
    }
}

impl LoraOptions {
    /// The scale for an `alpha`: `alpha / rank`, and `alpha / √rank` for rsLoRA
    /// (arXiv 2312.03732).
    pub fn scale_of(alpha: f32, rank: usize, rslora: bool) -> f32 {
        let rank = rank as f32;
        alpha / if rslora { rank.sqrt() } else { rank }
    }
}

/// A trained or new adapter. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub(crate) kind: AdapterKind,
    /// LoRA and DoRA: factors by the name of the matrix without `.weight`.
    pub(crate) modules: BTreeMap<String, Module>,
    /// Full: weights by tensor name.
    pub(crate) weights: Tensors,
    pub(crate) dropout: f32,
    pub(crate) tied_head: bool,
    /// The folder that it was read from, if any.
    pub(crate) origin: Option<PathBuf>,
}

impl Adapter {
    /// The kind of fine-tuning.
    pub fn kind(&self) -> AdapterKind {
        self.kind
    }

    /// The folder that it was read from, for messages.
    pub(crate) fn place(&self) -> &Path {
        self.origin.as_deref().unwrap_or(Path::new("adapter"))
    }

    /// The number of parameters.
    pub fn parameter_count(&self) -> u64 {
        self.tensors().values().map(|t| t.size() as u64).sum()
    }

    /// The names of the adapted matrices (and norms).
    pub fn targets(&self) -> Vec<&str> {
        let modules = self.modules.keys().map(String::as_str);
        modules
            .chain(
                self.weights
                    .keys()
                    .map(|name| name.strip_suffix(".weight").unwrap_or(name)),
            )
            .collect()
    }

    /// The first matrix of a DoRA adapter without magnitudes, which the formats of mlx-lm and PEFT
    /// do not have.
    pub(super) fn without_magnitudes(&self) -> Option<&str> {
        let mut modules = self.modules.iter();
        let is_dora = self.kind == AdapterKind::Dora;
        let found = modules.find(|(_, module)| is_dora && module.m.is_none());
        found.map(|(name, _)| name.as_str())
    }

    /// True if the matrix of the logits of a model with `config` depends on the parameters.
    pub(crate) fn trains_head(&self, config: &Config) -> bool {
        let tied = config.share_input_output_layers();
        self.weights.contains_key(&weight(HEAD))
            || self.modules.contains_key(HEAD)
            || tied && self.weights.contains_key(&weight(EMBEDDING))
            || tied && self.tied_head && self.modules.contains_key(EMBEDDING)
    }

    /// The tensors by mlx-lm's names.
    pub(crate) fn tensors(&self) -> Tensors {
        let mut tensors = self.weights.clone();
        for (name, module) in &self.modules {
            tensors.insert(format!("{name}.lora_a"), module.lora_a.clone());
            tensors.insert(format!("{name}.lora_b"), module.lora_b.clone());
            if let Some(m) = &module.m {
                tensors.insert(format!("{name}.m"), m.clone());
            }
        }
        tensors
    }

    /// Replaces the values of the tensors; other names are ignored.
    pub(crate) fn set_tensors(&mut self, tensors: &Tensors) {
        for (name, array) in tensors {
            if let Some(weight) = self.weights.get_mut(name) {
                *weight = array.clone();
                continue;
            }
            let Some((stem, part)) = name.rsplit_once('.') else {
                continue;
            };
            if let Some(module) = self.modules.get_mut(stem) {
                match part {
                    "lora_a" => module.lora_a = array.clone(),
                    "lora_b" => module.lora_b = array.clone(),
                    _ => module.m = Some(array.clone()),
                }
            }
        }
    }

    /// Checks that the adapter fits a model of `config`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the model has no such matrix, or one of another shape.
    pub fn check_fits(&self, config: &Config) -> Result<()> {
        self.check(config, self.place())
    }

    /// Checks that the adapter fits a model of `config`; errors name `origin`.
    pub(crate) fn check(&self, config: &Config, origin: &Path) -> Result<()> {
        let wrong = |problem: String| Error::adapter(origin, problem);
        let expected: BTreeMap<String, Vec<usize>> = config.tensors().into_iter().collect();
        for (name, weight) in &self.weights {
            match expected.get(name) {
                Some(shape) if *shape == shape_of(weight) => {}
                Some(shape) => {
                    return Err(wrong(format!(
                        "tensor `{name}`: expected shape {shape:?}, found {:?}",
                        shape_of(weight)
                    )));
                }
                None => return Err(wrong(format!("the model has no tensor `{name}`"))),
            }
        }
        for (name, module) in &self.modules {
            let Some(&[out, input]) = expected.get(&format!("{name}.weight")).map(Vec::as_slice)
            else {
                return Err(wrong(format!("the model has no matrix `{name}`")));
            };
            let rank = module.lora_b.dim(0) as usize;
            let (a, b) = if name == EMBEDDING {
                ([out, rank], [rank, input])
            } else {
                ([input, rank], [rank, out])
            };
            let mut parts = vec![("lora_a", &module.lora_a, a.to_vec())];
            parts.push(("lora_b", &module.lora_b, b.to_vec()));
            if let Some(m) = &module.m {
                parts.push(("m", m, vec![out]));
            }
            for (part, array, shape) in parts {
                if shape_of(array) != shape {
                    return Err(wrong(format!(
                        "tensor `{name}.{part}`: this model needs shape {shape:?}, found {:?}",
                        shape_of(array)
                    )));
                }
            }
        }
        Ok(())
    }
}

fn shape_of(array: &Array) -> Vec<usize> {
    array.shape().iter().map(|&n| n as usize).collect()
}
