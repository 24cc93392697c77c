//! CoreNet's checkpoints as the start of a run: weights, and in a training checkpoint also the
//! moments of AdamW, the moving average and the iteration.
//!
//! CoreNet makes two groups of parameters (`parameter_list` in `corenet/modeling/misc/common.py`):
//! those that decay, and those of one dimension, each in the order of its modules. Without
//! `no_decay_bn_filter_bias` there is one group. PyTorch numbers the parameters over all groups.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use mlx_rs::Array;

use crate::{
    config::{
        Config, Preset, corenet_name,
        tensor_names::{EMBEDDING, weight},
    },
    error::{Error, Result},
    formats::torch::{ParameterKey, TorchFile, TorchTensor, TrainingCheckpoint},
    training::state::Position,
    weights::{Tensors, Weights, derived::is_inv_freq},
};

/// A checkpoint of CoreNet (`.pt`): weights, or a training checkpoint. Holds no weights.
#[derive(Debug)]
pub struct CoreNetCheckpoint {
    path: PathBuf,
    file: Checkpoint,
    /// True for CoreNet's names, false for Hugging Face's.
    has_corenet_names: bool,
}

#[derive(Debug)]
enum Checkpoint {
    Weights(TorchFile),
    Training(Box<TrainingCheckpoint>),
}

/// A parameter: its key in the optimizer's state, its name and its shape.
type Parameter<'t> = (&'t ParameterKey, String, Vec<usize>);

/// Prefixes that PyTorch's wrappers add to the names of modules.
const WRAPPERS: [&str; 3] = [
    "module.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
];

impl CoreNetCheckpoint {
    /// Reads the lists of the file's tensors.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] if the file is malformed, lacks the embedding, or has
    /// the state of another optimizer than AdamW, [`Error::TensorDtype`] for a tensor that is not
    /// F32, F16 or BF16.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = match TrainingCheckpoint::open(&path)? {
            Some(checkpoint) => Checkpoint::Training(Box::new(checkpoint)),
            None => Checkpoint::Weights(TorchFile::open(&path)?),
        };
        let mut checkpoint = Self {
            path,
            file,
            has_corenet_names: true,
        };
        let tensors = checkpoint.weights().tensors();
        checkpoint.has_corenet_names = !tensors.contains_key(&weight(EMBEDDING));
        checkpoint.vocab_size()?;
        Ok(checkpoint)
    }

    /// Number of updates of the training so far; `None` for weights without an optimizer's state.
    pub fn iteration(&self) -> Option<u64> {
        match &self.file {
            Checkpoint::Weights(_) => None,
            Checkpoint::Training(training) => Some(training.iterations),
        }
    }

    /// True if the file has a moving average of the weights in training.
    pub fn has_average(&self) -> bool {
        match &self.file {
            Checkpoint::Weights(_) => false,
            Checkpoint::Training(training) => training.average.is_some(),
        }
    }

    /// Rows V of the embedding, CoreNet's padding rows included.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no embedding.
    pub fn vocab_size(&self) -> Result<usize> {
        let name = self.stored_name(&weight(EMBEDDING));
        let embedding = self.weights().tensors().get(&name);
        let rows = embedding.and_then(|tensor| tensor.shape.first());
        rows.copied()
            .ok_or_else(|| self.malformed(format!("tensor `{name}` is missing")))
    }

    /// The released size with these tensors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none.
    pub fn architecture(&self) -> Result<Config> {
        let tensors = self.weights().tensors();
        let has = |name: &str, shape: &[usize]| {
            let found = tensors.get(&self.stored_name(name));
            found.is_some_and(|found| found.shape == shape)
        };
        Preset::with_tensors(self.vocab_size()?, has).ok_or_else(|| {
            self.malformed(
                "the tensors match none of OpenELM's four sizes; state the architecture".into(),
            )
        })
    }

    /// The weights of a model of `config`, in f32, and the position of a training checkpoint.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] if the
    /// weights are of another architecture, [`Error::Checkpoint`] if the optimizer's state does not
    /// match them.
    pub(super) fn read(&self, config: &Config) -> Result<(Weights, Option<Position>)> {
        let weights = self.tensors(config, self.weights().tensors())?;
        let position = match &self.file {
            Checkpoint::Weights(_) => None,
            Checkpoint::Training(training) => Some(self.position(config, training)?),
        };
        let weights = weights.into_iter().collect();
        Ok((Weights::from_tensors(weights), position))
    }

    fn weights(&self) -> &TorchFile {
        match &self.file {
            Checkpoint::Weights(weights) => weights,
            Checkpoint::Training(training) => &training.weights,
        }
    }

    fn stored_name(&self, name: &str) -> String {
        if self.has_corenet_names {
            corenet_name(name)
        } else {
            name.to_owned()
        }
    }

    /// The tensors of `config` among `stored`.
    fn tensors(&self, config: &Config, stored: &BTreeMap<String, TorchTensor>) -> Result<Tensors> {
        let mut unknown: Vec<&String> = stored.keys().filter(|name| !is_inv_freq(name)).collect();
        let mut tensors = Tensors::new();
        for (name, shape) in config.tensors() {
            let stored_name = self.stored_name(&name);
            let path = self.path.clone();
            let Some(tensor) = stored.get(&stored_name) else {
                return Err(Error::MissingTensor {
                    path,
                    name: stored_name,
                    shape,
                });
            };
            if tensor.shape != shape {
                return Err(Error::TensorShape {
                    path,
                    name: stored_name,
                    expected: shape,
                    found: tensor.shape.clone(),
                });
            }
            unknown.retain(|unknown| **unknown != stored_name);
            tensors.insert(name, self.array(tensor)?);
        }
        match unknown.first() {
            None => Ok(tensors),
            Some(name) => Err(Error::UnexpectedTensor {
                path: self.path.clone(),
                name: (*name).clone(),
            }),
        }
    }

    /// The values of `tensor`, f32.
    fn array(&self, tensor: &TorchTensor) -> Result<Array> {
        let values = self.weights().read_floats(tensor)?;
        let shape: Vec<i32> = tensor.shape.iter().map(|&size| size as i32).collect();
        Ok(Array::from_slice(&values, &shape))
    }

    fn position(&self, config: &Config, training: &TrainingCheckpoint) -> Result<Position> {
        let order = self.parameter_order(config, training)?;
        let mut slots = Tensors::new();
        let mut updates = None;
        for (key, name, shape) in order {
            let Some(moments) = training.moments.get(key) else {
                return Err(self.optimizer(format!("`{name}` (parameter {key}) has no state")));
            };
            let steps = *updates.get_or_insert(moments.step);
            if moments.step != steps {
                let found = moments.step;
                return Err(self.optimizer(format!(
                    "`{name}` (parameter {key}): expected {steps} steps as of the others, found \
                     {found}"
                )));
            }
            let tensors = [
                (&moments.exp_avg, "exp_avg", "m"),
                (&moments.exp_avg_sq, "exp_avg_sq", "v"),
            ];
            for (tensor, stored, slot) in tensors {
                if tensor.shape != shape {
                    let found = &tensor.shape;
                    return Err(self.optimizer(format!(
                        "{stored} of `{name}` (parameter {key}): expected shape {shape:?}, found \
                         {found:?}"
                    )));
                }
                slots.insert(format!("{name}.{slot}"), self.array(tensor)?);
            }
        }
        if training.moments.len() * 2 != slots.len() {
            let (expected, found) = (slots.len() / 2, training.moments.len());
            return Err(self.optimizer(format!(
                "expected the state of {expected} parameters, found {found}"
            )));
        }
        let average = training.average.as_ref();
        Ok(Position {
            iteration: training.iterations,
            updates: updates.unwrap_or_default(),
            slots,
            average: average
                .map(|average| self.tensors(config, average))
                .transpose()?,
        })
    }

    /// Every parameter of the optimizer.
    fn parameter_order<'t>(
        &self,
        config: &Config,
        training: &'t TrainingCheckpoint,
    ) -> Result<Vec<Parameter<'t>>> {
        let tensors = config.tensors_in_corenet_order();
        let keys = training.groups.iter().flatten();
        let by_name = |name: &str| {
            let name = WRAPPERS
                .iter()
                .fold(name.to_owned(), |name, wrapper| name.replace(wrapper, ""));
            let found = tensors
                .iter()
                .find(|(known, _)| *known == name || corenet_name(known) == name);
            found.cloned().ok_or_else(|| {
                self.optimizer(format!(
                    "`{}` is no parameter of the model",
                    name.escape_debug()
                ))
            })
        };
        let sizes: Vec<usize> = training.groups.iter().map(Vec::len).collect();
        let (vectors, matrices): (Vec<_>, Vec<_>) = tensors
            .iter()
            .cloned()
            .partition(|(_, shape)| shape.len() == 1);
        let expected = [matrices.len(), vectors.len()];
        let numbered = match sizes.as_slice() {
            [_] => tensors.clone(),
            _ => [matrices, vectors].concat(),
        };
        let is_grouped = sizes == expected || sizes == [tensors.len()];
        if !is_grouped {
            return Err(self.optimizer(format!(
                "expected groups of {expected:?} parameters, or one of {}, found {sizes:?}",
                tensors.len()
            )));
        }
        let named = keys.zip(numbered).map(|(key, tensor)| {
            let (name, shape) = match key {
                ParameterKey::Number(_) => tensor,
                ParameterKey::Name(name) => by_name(name)?,
            };
            Ok((key, name, shape))
        });
        named.collect()
    }

    fn malformed(&self, problem: String) -> Error {
        Error::checkpoint(&self.path, problem)
    }

    fn optimizer(&self, problem: String) -> Error {
        self.malformed(format!("`optim_state_dict`: {problem}"))
    }
}
