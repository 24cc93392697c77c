//! A model as a function of its trained parameters.

use std::collections::HashMap;

use mlx_rs::{Array, Dtype as MlxDtype, random};

use crate::seed::derive_seed;
use crate::{
    adapter::{Adapter, AdapterKind, each_linear},
    config::tensor_names::{EMBEDDING, HEAD, weight},
    data::batch::Batch,
    error::{Error, Result},
    mlx::{Device, Dtype},
    model::{Dropout, Model, RowNorms, is_finite, row_squares},
};

/// The frozen model, and the names and shapes of the trained parameters.
#[derive(Debug)]
pub(super) struct TrainableModel {
    base: Model,
    adapter: Adapter,
    names: Vec<String>,
    /// Dtype of the computation; of the products, if the rest is f32.
    dtype: MlxDtype,
    /// DoRA: squared row norms of the adapted matrices.
    squares: HashMap<String, Array>,
}

impl TrainableModel {
    pub(super) fn new(model: &Model, adapter: Adapter) -> Result<Self> {
        if !model.active_adapters().is_empty() {
            return Err(Error::Option {
                option: "model",
                problem: "it has active adapters; switch them off to train another".into(),
            });
        }
        adapter.check(model.config(), adapter.place())?;
        let mut squares = HashMap::new();
        each_linear(model, |name, linear| {
            if adapter.modules.get(name).is_some_and(|m| m.m.is_some()) {
                let square = row_squares(&linear.matrix)?;
                square.eval()?;
                squares.insert(name.to_owned(), square);
            }
            Ok(())
        })?;
        let mut base = model.clone();
        if adapter.kind == AdapterKind::Full {
            base.expand_stored()?;
        }
        Ok(Self {
            dtype: model.dtype().mlx(),
            base,
            names: adapter.tensors().into_keys().collect(),
            adapter,
            squares,
        })
    }

    /// The initial parameters, in f32 for every type of the model.
    pub(super) fn start(&self) -> Result<Vec<Array>> {
        let tensors = self.adapter.tensors();
        let in_f32 = |array: &Array| match array.dtype() {
            MlxDtype::Float32 => Ok(array.clone()),
            _ => Ok(array.as_dtype(MlxDtype::Float32)?),
        };
        tensors.values().map(in_f32).collect()
    }

    /// The names of the trained parameters, in their order.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Dtype of the computation; of the products, with [`autocast`](Self::autocast).
    pub(super) fn dtype(&self) -> MlxDtype {
        self.dtype
    }

    /// Computes products in `dtype`, and the rest in f32.
    ///
    /// # Errors
    /// [`Error::Option`] for an adapter, or weights that are not f32.
    pub(super) fn autocast(&mut self, dtype: Dtype) -> Result<()> {
        let problem = if self.adapter.kind != AdapterKind::Full {
            "expected all weights to be trained, found an adapter"
        } else if self.base.dtype() != Dtype::Float32 {
            "expected a model in float32"
        } else {
            self.dtype = dtype.mlx();
            return Ok(());
        };
        Err(Error::option("autocast", problem))
    }

    /// Frees the weights that training replaces, after [`start`](Self::start) has returned
    /// them.
    pub(super) fn forget_start(&mut self) -> Result<()> {
        let mut failed = None;
        let weights = &mut self.adapter.weights;
        self.base.replace_weights(&mut |name, weight| {
            let start = weights.get_mut(name)?;
            let hollow = |like: &Array| placeholder(like.shape(), like.dtype());
            match (hollow(start), hollow(weight)) {
                (Ok(empty), Ok(hollow)) => {
                    *start = empty;
                    Some(hollow)
                }
                (Err(error), _) | (_, Err(error)) => {
                    failed = Some(error);
                    None
                }
            }
        })?;
        match failed {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Refuses parameters that are not finite.
    ///
    /// # Errors
    /// [`Error::Adapter`] or, for weights, [`Error::NonFinite`] names the tensor.
    pub(super) fn check_finite(&self, parameters: &[Array]) -> Result<()> {
        for (name, parameter) in self.names.iter().zip(parameters) {
            // The sum of finite numbers may overflow.
            let sum = parameter.sum(None)?.try_item_exact::<f32>()?;
            if sum.is_finite() || is_finite(parameter)? {
                continue;
            }
            let problem = format!("tensor `{name}` holds NaN or infinity");
            return Err(match self.adapter.kind {
                AdapterKind::Full => Error::NonFinite {
                    place: "the model".into(),
                    problem,
                },
                AdapterKind::Lora | AdapterKind::Dora => {
                    Error::adapter(self.adapter.place(), problem)
                }
            });
        }
        Ok(())
    }

    /// The error of the first part of the model with `parameters`, or of the base model, whose
    /// output for a row of `batch` is not finite. In the base model, trained weights are zeros.
    pub(super) fn non_finite(
        &self,
        parameters: Option<&[Array]>,
        batch: &Batch,
    ) -> Result<Option<Error>> {
        let trained = match parameters {
            Some(parameters) => Some(self.model(parameters, None, &[])?),
            None => None,
        };
        let model = trained.as_ref().unwrap_or(&self.base);
        for row in batch.inputs.chunks(batch.length.max(1)) {
            if let Some(error) = model.non_finite(row)? {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// Rows of the embedding, `V`.
    pub(super) fn vocab_size(&self) -> usize {
        self.base.config().vocab_size()
    }

    pub(super) fn layers(&self) -> usize {
        self.base.config().num_transformer_layers()
    }

    /// True if the matrix of the logits depends on trained parameters.
    pub(super) fn trains_head(&self) -> bool {
        self.adapter.trains_head(self.base.config())
    }

    /// The random keys of a step's dropout, one for each adapted matrix; none without dropout. A
    /// seed gives the same keys in every call.
    pub(super) fn dropout_keys(&self, seed: u64) -> Result<Vec<Array>> {
        if self.adapter.dropout <= 0.0 {
            return Ok(Vec::new());
        }
        // A tied head may use the embedding's adapter too.
        let matrices = self.adapter.modules.len() as u64 + 1;
        let keys = (1..=matrices).map(|nth| Ok(random::key(derive_seed(seed, nth))?));
        keys.collect()
    }

    /// True if the model's weights are the parameters in another dtype.
    pub(super) fn casts_parameters(&self) -> bool {
        self.adapter.kind == AdapterKind::Full && self.dtype() != MlxDtype::Float32
    }

    /// `parameters` in the dtype of the computation, lazily. Autocast leaves vectors as they are.
    pub(super) fn copies(&self, parameters: &[Array]) -> Result<Vec<Array>> {
        let is_autocast = self.dtype != self.base.dtype().mlx();
        let cast = |parameter: &Array| {
            Ok(match parameter.ndim() {
                0 | 1 if is_autocast => parameter.clone(),
                _ => parameter.as_dtype(self.dtype)?,
            })
        };
        parameters.iter().map(cast).collect()
    }

    /// The number of the parameter that the model uses in f32 too: the embedding, for its look-up.
    pub(super) fn looked_up(&self) -> Option<usize> {
        let embedding = weight(EMBEDDING);
        let casts = self.casts_parameters();
        let place = || self.names.iter().position(|name| *name == embedding);
        casts.then(place).flatten()
    }

    /// The model with `parameters`, or with their `copies` in the dtype of the computation. The
    /// keys of [`dropout_keys`](Self::dropout_keys) enable dropout.
    pub(super) fn model(
        &self,
        parameters: &[Array],
        copies: Option<&[Array]>,
        dropout_keys: &[Array],
    ) -> Result<Model> {
        let by_name: HashMap<&str, &Array> = self
            .names
            .iter()
            .map(String::as_str)
            .zip(parameters)
            .collect();
        let mut model = self.base.clone();
        if self.adapter.kind == AdapterKind::Full {
            // The computation uses the model's dtype; trained parameters are f32.
            let cast = match copies {
                Some(copies) => copies.to_vec(),
                None => self.copies(parameters)?,
            };
            let names = self.names.iter().map(String::as_str);
            let mut cast: HashMap<&str, Array> = names.zip(cast).collect();
            model.replace_weights(&mut |name, _| cast.remove(name))?;
            if let Some(embedding) = self.looked_up().and_then(|i| parameters.get(i)) {
                model.visit_linears(&mut |name, linear| {
                    if name == EMBEDDING {
                        linear.look_up_in_f32(embedding);
                    }
                    Ok(())
                })?;
            }
            return Ok(model);
        }
        let tied = self.base.config().share_input_output_layers();
        let (dtype, device) = (self.base.dtype(), Device::current()?);
        let mut keys = dropout_keys.iter();
        model.visit_linears(&mut |name, linear| {
            let is_tied_head = tied && name == HEAD;
            if is_tied_head && !self.adapter.tied_head {
                return Ok(());
            }
            let source = if is_tied_head { EMBEDDING } else { name };
            let Some(module) = self.adapter.modules.get(source) else {
                return Ok(());
            };
            let part = |part: &str| by_name.get(format!("{source}.{part}").as_str()).copied();
            let mut module = module.clone();
            if let (Some(a), Some(b)) = (part("lora_a"), part("lora_b")) {
                (module.lora_a, module.lora_b) = (a.clone(), b.clone());
            }
            module.m = part("m").cloned();
            let dropout = keys.next().map(|key| Dropout {
                rate: self.adapter.dropout,
                key: key.clone(),
            });
            let norms = match self.squares.get(source) {
                None => None,
                Some(square) => {
                    let (a, b) = module.factors(source);
                    let matrix = &linear.matrix;
                    Some(match device {
                        Device::Cpu => RowNorms::new(square, matrix, &a, &b, dtype)?,
                        Device::Gpu => {
                            RowNorms::with_scale(square, matrix, &a, &b, dtype, module.scale)?
                        }
                    })
                }
            };
            let added = module.low_rank(source, 1.0, dropout, norms.as_ref())?;
            linear.set_adapters(vec![added]);
            Ok(())
        })?;
        Ok(model)
    }
}

/// Zeros of a shape that use the memory of one element.
pub(super) fn placeholder(shape: &[i32], dtype: MlxDtype) -> Result<Array> {
    let zero = mlx_rs::ops::zeros_dtype(&[1], dtype)?;
    Ok(mlx_rs::ops::broadcast_to(&zero, shape)?)
}
