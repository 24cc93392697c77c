//! Optimizers, with MLX's formulas (`mlx/optimizers`).
//!
//! mlx-rs has optimizers too, but without bias correction and without a state that can be saved and
//! restored bit for bit, including the step count.

use std::collections::BTreeMap;

use mlx_rs::{
    Array,
    error::Exception,
    ops::{maximum, rsqrt, sign, zeros_dtype},
};

use crate::{
    error::{Error, Result},
    weights::Tensors,
};

/// An optimizer and its settings. A setting that the kind does not use must have its default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// The update rule.
    pub kind: OptimizerKind,
    /// Decay rates of the moments (Adam, AdamW, Lion). Default 0.9 and 0.999; for Lion 0.99.
    pub betas: [f32; 2],
    /// Added to Adam's denominators. Default 1e-8.
    pub eps: f32,
    /// Fraction of a matrix that each update subtracts, times the learning rate (AdamW, Lion,
    /// Adafactor), or adds to the gradient (SGD). Norms and magnitudes do not decay, as in CoreNet.
    /// Default 0.
    pub weight_decay: f32,
    /// SGD's momentum. Default 0.
    pub momentum: f32,
    /// Adam and AdamW: correct the bias of moments that start at zero, as PyTorch does. Default
    /// off, as in MLX.
    pub bias_correction: bool,
    /// Apply weight decay to norms and magnitudes too, as mlx-lm does. Default off.
    pub decay_vectors: bool,
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Adam (arXiv 1412.6980).
    Adam,
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    AdamW,
    /// Gradient descent, with momentum.
    Sgd,
    /// Lion (arXiv 2302.06675).
    Lion,
    /// Adafactor (arXiv 1804.04235), scaled by its parameters and with the given learning rate.
    Adafactor,
}

impl Optimizer {
    /// The rule `kind` with its defaults.
    pub fn new(kind: OptimizerKind) -> Self {
        Self {
            kind,
            betas: match kind {
                OptimizerKind::Lion => [0.9, 0.99],
                _ => [0.9, 0.999],
            },
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            bias_correction: false,
            decay_vectors: false,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let share = |x: f32| (0.0..1.0).contains(&x);
        let problem = if !self.betas.into_iter().all(share) {
            (
                "betas",
                format!("expected 0 or more and below 1, found {:?}", self.betas),
            )
        } else if !(self.eps >= 0.0 && self.eps.is_finite()) {
            ("eps", format!("expected 0 or more, found {}", self.eps))
        } else if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            let found = self.weight_decay;
            ("weight_decay", format!("expected 0 or more, found {found}"))
        } else if self.weight_decay > 0.0 && self.kind == OptimizerKind::Adam {
            let problem = "Adam has no weight decay; use AdamW, SGD, Lion or Adafactor";
            ("weight_decay", problem.into())
        } else if self.bias_correction
            && !matches!(self.kind, OptimizerKind::Adam | OptimizerKind::AdamW)
        {
            let problem = "only Adam and AdamW have a bias correction";
            ("bias_correction", problem.into())
        } else if self.momentum > 0.0 && self.kind != OptimizerKind::Sgd {
            ("momentum", "only SGD has a momentum".into())
        } else if !share(self.momentum) {
            let found = self.momentum;
            (
                "momentum",
                format!("expected 0 or more and below 1, found {found}"),
            )
        } else {
            return Ok(());
        };
        let (option, problem) = problem;
        Err(Error::Option { option, problem })
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::new(OptimizerKind::Adam)
    }
}

/// The state of an optimizer for each parameter, f32.
#[derive(Debug)]
pub(crate) struct OptimizerState {
    rule: Optimizer,
    names: Vec<String>,
    /// Per parameter: arrays by name.
    slots: Vec<BTreeMap<&'static str, Array>>,
    updates: u64,
}

impl OptimizerState {
    pub(crate) fn new(rule: Optimizer, names: &[String], parameters: &[Array]) -> Result<Self> {
        let slots = parameters.iter().map(|parameter| {
            let shape = parameter.shape();
            let slots = rule
                .slots(shape)
                .into_iter()
                .map(|(slot, shape)| Ok((slot, zeros_dtype(&shape, parameter.dtype())?)));
            slots.collect::<Result<BTreeMap<_, _>>>()
        });
        Ok(Self {
            rule,
            names: names.to_vec(),
            slots: slots.collect::<Result<_>>()?,
            updates: 0,
        })
    }

    /// Number of updates so far.
    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.slots.iter().flat_map(BTreeMap::values)
    }

    /// Like [`arrays`](Self::arrays), of each parameter.
    pub(super) fn arrays_by_parameter(&self) -> impl Iterator<Item = impl Iterator<Item = &Array>> {
        self.slots.iter().map(BTreeMap::values)
    }

    /// Like [`arrays`](Self::arrays), for replacing them.
    pub(super) fn arrays_mut(&mut self) -> impl Iterator<Item = &mut Array> {
        self.slots.iter_mut().flat_map(BTreeMap::values_mut)
    }

    pub(super) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }

    /// The numbers of the next update, with `learning_rate`.
    pub(super) fn rates(&self, learning_rate: f32) -> Rates {
        Rates::new(self.rule, learning_rate, self.updates + 1)
    }

    /// Replaces the arrays by those of the next update, in the order of [`arrays`](Self::arrays).
    pub(super) fn replace(&mut self, arrays: Vec<Array>) {
        for (slot, array) in self.arrays_mut().zip(arrays) {
            *slot = array;
        }
    }

    /// Updates `parameters` by the optimizer's `rule`, which made the state.
    pub(crate) fn step(
        &mut self,
        parameters: &mut [Array],
        gradients: Vec<Array>,
        learning_rate: f32,
    ) -> Result<()> {
        let rates = self.rates(learning_rate);
        let mut arrays: Vec<Array> = self.arrays().cloned().collect();
        self.rule
            .update(parameters, gradients, &mut arrays, &rates)?;
        self.replace(arrays);
        self.updates += 1;
        Ok(())
    }

    /// The arrays with their names in a file and the numbers of their parameters, in the order of
    /// [`arrays`](Self::arrays).
    pub(crate) fn named(&self) -> impl Iterator<Item = (usize, String, &Array)> {
        let all = self.names.iter().zip(&self.slots).enumerate();
        all.flat_map(|(index, (name, slots))| {
            let slots = slots.iter();
            slots.map(move |(slot, array)| (index, format!("{name}.{slot}"), array))
        })
    }

    /// Restores the arrays of [`named`](Self::named) by their names; the error is the name of an array that
    /// is missing or has another shape.
    pub(crate) fn restore(&mut self, mut tensors: Tensors, updates: u64) -> Result<(), String> {
        for (name, slots) in self.names.iter().zip(&mut self.slots) {
            for (slot, array) in slots {
                let name = format!("{name}.{slot}");
                match tensors.remove(&name) {
                    Some(found) if found.shape() == array.shape() => *array = found,
                    _ => return Err(name),
                }
            }
        }
        self.updates = updates;
        Ok(())
    }
}

impl Optimizer {
    /// The arrays for a parameter of this shape, initially zero.
    fn slots(&self, shape: &[i32]) -> Vec<(&'static str, Vec<i32>)> {
        let whole = shape.to_vec();
        match self.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => vec![("m", whole.clone()), ("v", whole)],
            OptimizerKind::Lion => vec![("m", whole)],
            OptimizerKind::Sgd if self.momentum > 0.0 => vec![("v", whole)],
            OptimizerKind::Sgd => Vec::new(),
            OptimizerKind::Adafactor => match shape {
                [rows, columns] => vec![("row", vec![*rows]), ("column", vec![*columns])],
                _ => vec![("v", whole)],
            },
        }
    }
}

/// The numbers of one update that differ from those of another one, f32 scalars. They are
/// arguments of a compiled step.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    learning_rate: Array,
    /// The learning rate with the correction of Adam's first moment.
    corrected: Array,
    /// Correction of the root of Adam's second moment.
    root: Array,
    /// The fraction of a parameter that decoupled weight decay keeps.
    kept: Array,
    /// Adafactor's fraction of the old average, and of the new value.
    beta: [Array; 2],
}

impl Rates {
    /// Number of arrays.
    pub(super) const COUNT: usize = 6;

    fn new(rule: Optimizer, learning_rate: f32, updates: u64) -> Self {
        let [b1, b2] = rule.betas;
        let power = |beta: f32| 1.0 - f64::from(beta).powf(updates as f64);
        let beta = 1.0 - (updates as f32).powf(-0.8);
        Self {
            learning_rate: scalar(learning_rate),
            corrected: scalar((f64::from(learning_rate) / power(b1)) as f32),
            root: scalar(power(b2).powf(-0.5) as f32),
            kept: scalar(1.0 - learning_rate * rule.weight_decay),
            beta: [scalar(beta), scalar(1.0 - beta)],
        }
    }

    pub(super) fn arrays(&self) -> [&Array; Self::COUNT] {
        let [old, new] = &self.beta;
        let Self {
            learning_rate,
            corrected,
            root,
            kept,
            ..
        } = self;
        [learning_rate, corrected, root, kept, old, new]
    }

    /// The inverse of [`arrays`](Self::arrays).
    pub(super) fn from_arrays(arrays: [Array; Self::COUNT]) -> Self {
        let [learning_rate, corrected, root, kept, old, new] = arrays;
        Self {
            learning_rate,
            corrected,
            root,
            kept,
            beta: [old, new],
        }
    }
}

impl Optimizer {
    /// Replaces `parameters` and the state `arrays`, in the order of [`OptimizerState::arrays`], by
    /// those after an update with `gradients`.
    pub(super) fn update(
        self,
        parameters: &mut [Array],
        gradients: Vec<Array>,
        arrays: &mut [Array],
        rates: &Rates,
    ) -> Result<()> {
        let mut rest = arrays;
        for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
            let decays = parameter.ndim() > 1 || self.decay_vectors;
            let one = Single {
                rule: self,
                weight_decay: if decays { self.weight_decay } else { 0.0 },
                rates,
            };
            let mut names: Vec<_> = self.slots(parameter.shape());
            names.sort_unstable_by_key(|(name, _)| *name);
            let Some((own, others)) = rest.split_at_mut_checked(names.len()) else {
                return Err(Exception::custom("the optimizer's state is incomplete").into());
            };
            let names = names.into_iter().map(|(name, _)| name);
            let mut slots: Slots = names.zip(own.iter().cloned()).collect();
            *parameter = one.update(parameter, &gradient, &mut slots)?;
            for (place, array) in own.iter_mut().zip(slots.into_values()) {
                *place = array;
            }
            rest = others;
        }
        Ok(())
    }
}

/// One update of one parameter.
struct Single<'a> {
    rule: Optimizer,
    weight_decay: f32,
    rates: &'a Rates,
}

/// Arrays by name, in the order of their names.
type Slots = BTreeMap<&'static str, Array>;

impl Single<'_> {
    fn update(&self, parameter: &Array, gradient: &Array, slots: &mut Slots) -> Result<Array> {
        match self.rule.kind {
            OptimizerKind::Adam => self.adam(parameter, gradient, slots),
            OptimizerKind::AdamW => {
                let decayed = match self.weight_decay {
                    0.0 => parameter.clone(),
                    _ => parameter.multiply(&self.rates.kept)?,
                };
                self.adam(&decayed, gradient, slots)
            }
            OptimizerKind::Sgd => self.sgd(parameter, gradient, slots),
            OptimizerKind::Lion => self.lion(parameter, gradient, slots),
            OptimizerKind::Adafactor => self.adafactor(parameter, gradient, slots),
        }
    }

    fn adam(&self, parameter: &Array, gradient: &Array, slots: &mut Slots) -> Result<Array> {
        let [b1, b2] = self.rule.betas;
        let m = average(slots, "m", gradient, b1)?;
        let v = average(slots, "v", &gradient.square()?, b2)?;
        let (rate, root) = if self.rule.bias_correction {
            let root = v.sqrt()?.multiply(&self.rates.root)?;
            (&self.rates.corrected, root)
        } else {
            (&self.rates.learning_rate, v.sqrt()?)
        };
        let step = m.multiply(rate)?.divide(root.add(scalar(self.rule.eps))?)?;
        Ok(parameter.subtract(step)?)
    }

    fn sgd(&self, parameter: &Array, gradient: &Array, slots: &mut Slots) -> Result<Array> {
        let gradient = match self.weight_decay {
            0.0 => gradient.clone(),
            decay => gradient.add(parameter.multiply(scalar(decay))?)?,
        };
        let step = match slots.get_mut("v") {
            None => gradient,
            Some(v) => {
                *v = v.multiply(scalar(self.rule.momentum))?.add(&gradient)?;
                v.clone()
            }
        };
        Ok(parameter.subtract(step.multiply(&self.rates.learning_rate)?)?)
    }

    #[expect(clippy::expect_used, reason = "`Optimizer::slots` adds `m`")]
    fn lion(&self, parameter: &Array, gradient: &Array, slots: &mut Slots) -> Result<Array> {
        let [b1, b2] = self.rule.betas;
        let m = slots.get("m").expect("Lion keeps `m`");
        let mixed = m
            .multiply(scalar(b1))?
            .add(gradient.multiply(scalar(1.0 - b1))?)?;
        average(slots, "m", gradient, b2)?;
        let step = sign(&mixed)?.multiply(&self.rates.learning_rate)?;
        let kept = match self.weight_decay {
            0.0 => parameter.clone(),
            _ => parameter.multiply(&self.rates.kept)?,
        };
        Ok(kept.subtract(step)?)
    }

    fn adafactor(&self, parameter: &Array, gradient: &Array, slots: &mut Slots) -> Result<Array> {
        let rms = |x: &Array| -> Result<Array> { Ok(x.square()?.mean(false)?.sqrt()?) };
        let scale = maximum(scalar(1e-3), rms(parameter)?)?;
        let rate = scale.multiply(&self.rates.learning_rate)?;
        let [old, new] = &self.rates.beta;
        let square = gradient.square()?.add(scalar(1e-30))?;
        let update = if slots.contains_key("row") {
            let row = mix(slots, "row", &square.mean_axis(-1, false)?, old, new)?;
            let column = mix(slots, "column", &square.mean_axis(-2, false)?, old, new)?;
            let row = rsqrt(row.divide(row.mean_axis(-1, true)?)?)?;
            let factors = row
                .expand_dims(-1)?
                .multiply(rsqrt(&column)?.expand_dims(-2)?)?;
            factors.multiply(gradient)?
        } else {
            rsqrt(mix(slots, "v", &square, old, new)?)?.multiply(gradient)?
        };
        let update = update.divide(maximum(scalar(1.0), rms(&update)?)?)?;
        let kept = match self.weight_decay {
            0.0 => parameter.clone(),
            decay => {
                let lost = rate.multiply(scalar(decay))?;
                parameter.subtract(parameter.multiply(lost)?)?
            }
        };
        Ok(kept.subtract(update.multiply(rate)?)?)
    }
}

/// Updates the running average `slot`: the fraction `beta` old, the rest `new`.
fn average(slots: &mut Slots, slot: &'static str, new: &Array, beta: f32) -> Result<Array> {
    mix(slots, slot, new, &scalar(beta), &scalar(1.0 - beta))
}

/// Like [`average`], for fractions in arrays.
fn mix(
    slots: &mut Slots,
    slot: &'static str,
    new: &Array,
    old_share: &Array,
    new_share: &Array,
) -> Result<Array> {
    let new = new.multiply(new_share)?;
    let average = match slots.get(slot) {
        Some(old) => old.multiply(old_share)?.add(new)?,
        None => new,
    };
    slots.insert(slot, average.clone());
    Ok(average)
}

fn scalar(value: f32) -> Array {
    Array::from_f32(value)
}
