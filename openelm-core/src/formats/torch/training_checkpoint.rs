//! A checkpoint of a training run: weights, the state of PyTorch's AdamW, and the iteration.
//!
//! CoreNet writes a dict with `model_state_dict`, `optim_state_dict`, `iterations` and, if averaging
//! was on, `ema_state_dict` (`get_training_state` in `corenet/utils/checkpoint_utils.py`).
//! `optim_state_dict` has a dict `state`, from a parameter's key to its `step`, `exp_avg` and
//! `exp_avg_sq`, and a list `param_groups` of dicts, whose `params` are the keys in order. A key is a
//! number (`torch.optim.Optimizer.state_dict`) or, under FSDP, the parameter's name.

use std::{collections::BTreeMap, fmt, path::Path};

use super::{
    bytes::TorchBytes,
    state_dict::{self, member},
    torch_file::{Find, TorchFile, TorchTensor, collect, tensor, with_tree},
};
use crate::{
    error::Result,
    formats::torch::pickle::{Tree, Value},
    mlx::Dtype,
};

/// The list of a training checkpoint's tensors, and its counters. Holds no weights.
#[derive(Debug)]
pub(crate) struct TrainingCheckpoint {
    /// The weights.
    pub(crate) weights: TorchFile,
    /// The moving average of the weights, if there is one.
    pub(crate) average: Option<BTreeMap<String, TorchTensor>>,
    /// Number of updates so far.
    pub(crate) iterations: u64,
    /// The parameters' keys of each group, in the optimizer's order.
    pub(crate) groups: Vec<Vec<ParameterKey>>,
    /// The optimizer's state by parameter.
    pub(crate) moments: BTreeMap<ParameterKey, Moments>,
}

/// The key of a parameter in an optimizer's state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ParameterKey {
    /// Its number over all groups.
    Number(i64),
    /// Its name.
    Name(String),
}

/// AdamW's state of a parameter.
#[derive(Debug)]
pub(crate) struct Moments {
    /// Number of updates of the parameter.
    pub(crate) step: u64,
    /// Average of the gradients.
    pub(crate) exp_avg: TorchTensor,
    /// Average of the squared gradients.
    pub(crate) exp_avg_sq: TorchTensor,
}

impl TrainingCheckpoint {
    /// Reads the lists of a training checkpoint; `None` for a file without `optim_state_dict`.
    ///
    /// # Errors
    /// As [`TorchFile::open`], and [`Error::Checkpoint`](crate::Error) for an optimizer's state of another form
    /// than AdamW's.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let source = TorchBytes::open(path)?;
        let read = with_tree(&source, |tree, find| training(&source, tree, find))?;
        Ok(read.map(|parts| Self {
            weights: TorchFile::new(source, parts.weights),
            average: parts.average,
            iterations: parts.iterations,
            groups: parts.groups,
            moments: parts.moments,
        }))
    }
}

/// The parts of a [`TrainingCheckpoint`].
struct Parts {
    weights: BTreeMap<String, TorchTensor>,
    average: Option<BTreeMap<String, TorchTensor>>,
    iterations: u64,
    groups: Vec<Vec<ParameterKey>>,
    moments: BTreeMap<ParameterKey, Moments>,
}

fn training(source: &TorchBytes, tree: &Tree<'_>, find: Find<'_>) -> Result<Option<Parts>> {
    let malformed = |problem: String| source.malformed(problem);
    let root = tree.root();
    let Some(optimizer) = member(tree, root, "optim_state_dict").map_err(malformed)? else {
        return Ok(None);
    };
    let iterations = match member(tree, root, "iterations").map_err(malformed)? {
        Some(Value::Int(count)) => u64::try_from(count).ok(),
        _ => None,
    };
    let iterations = iterations
        .ok_or_else(|| source.malformed("`iterations` is missing or no natural number"))?;
    let has_average = member(tree, root, "ema_state_dict").map_err(malformed)?;
    let entries = |ema| state_dict::entries(tree, ema).map_err(malformed);
    let average = match has_average {
        Some(_) => Some(collect(source, tree, entries(true)?, find)?),
        None => None,
    };
    Ok(Some(Parts {
        weights: collect(source, tree, entries(false)?, find)?,
        average,
        iterations,
        groups: groups(tree, optimizer)
            .map_err(|problem| malformed(format!("`optim_state_dict`: {problem}")))?,
        moments: moments(source, tree, optimizer, find)?,
    }))
}

/// The keys in `param_groups`.
fn groups(tree: &Tree<'_>, optimizer: Value<'_>) -> Result<Vec<Vec<ParameterKey>>, String> {
    let groups = member(tree, optimizer, "param_groups")?;
    let groups = groups.and_then(|groups| tree.items(groups));
    let groups = groups.ok_or("expected a list `param_groups`, found none")?;
    let keys = |group: &Value<'_>| {
        let params = member(tree, *group, "params")?;
        let params = params.and_then(|params| tree.items(params));
        let params = params.ok_or("a group of parameters has no list `params`")?;
        params.iter().map(|&value| key(tree, value)).collect()
    };
    groups.iter().map(keys).collect()
}

/// The tensors in `state`.
fn moments(
    source: &TorchBytes,
    tree: &Tree<'_>,
    optimizer: Value<'_>,
    find: Find<'_>,
) -> Result<BTreeMap<ParameterKey, Moments>> {
    let malformed = |problem: String| source.malformed(format!("`optim_state_dict`: {problem}"));
    let state = member(tree, optimizer, "state").map_err(malformed)?;
    let state = state.and_then(|state| tree.entries(state));
    let state = state.ok_or_else(|| malformed("expected a dict `state`, found none".into()))?;
    let mut moments = BTreeMap::new();
    for &(value, slots) in state {
        let key = key(tree, value).map_err(malformed)?;
        let of_key = |problem: String| malformed(format!("parameter {key}: {problem}"));
        let [step, exp_avg, exp_avg_sq] = slots_of(tree, slots).map_err(of_key)?;
        let found = |name: &str, value| {
            let name = format!("{name} of parameter {key}");
            tensor(source, tree, &name, value, find)
        };
        let step = match step {
            Value::Int(count) => u64::try_from(count).ok(),
            Value::Tensor(_) => count(source, &found("step", step)?)?,
            _ => None,
        };
        let step = step.ok_or_else(|| of_key("expected a natural number as `step`".into()))?;
        let state = Moments {
            step,
            exp_avg: found("exp_avg", exp_avg)?,
            exp_avg_sq: found("exp_avg_sq", exp_avg_sq)?,
        };
        if moments.insert(key.clone(), state).is_some() {
            return Err(of_key("occurs twice".into()));
        }
    }
    Ok(moments)
}

/// The values of `step`, `exp_avg` and `exp_avg_sq`, which must be all of `slots`.
fn slots_of<'a>(tree: &Tree<'a>, slots: Value<'a>) -> Result<[Value<'a>; 3], String> {
    const SLOTS: [&str; 3] = ["step", "exp_avg", "exp_avg_sq"];
    for &(name, _) in tree.entries(slots).unwrap_or_default() {
        match name {
            Value::Text(name) if SLOTS.contains(&name) => {}
            Value::Text(name) => {
                let name = name.escape_debug();
                return Err(format!("`{name}` is no part of AdamW's state"));
            }
            other => return Err(format!("{} is no name", tree.describe(other))),
        }
    }
    let slot = |name: &str| {
        member(tree, slots, name)?.ok_or_else(|| {
            format!("expected AdamW's `step`, `exp_avg` and `exp_avg_sq`, found no `{name}`")
        })
    };
    let [step, exp_avg, exp_avg_sq] = SLOTS;
    Ok([slot(step)?, slot(exp_avg)?, slot(exp_avg_sq)?])
}

fn key(tree: &Tree<'_>, value: Value<'_>) -> Result<ParameterKey, String> {
    match value {
        Value::Int(number) => Ok(ParameterKey::Number(number)),
        Value::Text(name) => Ok(ParameterKey::Name(name.to_owned())),
        other => Err(format!(
            "expected a parameter's number or name, found {}",
            tree.describe(other)
        )),
    }
}

/// The natural number that a tensor of one float holds.
fn count(source: &TorchBytes, tensor: &TorchTensor) -> Result<Option<u64>> {
    if tensor.dtype != Dtype::Float32 || tensor.shape.iter().any(|&size| size != 1) {
        return Ok(None);
    }
    let bytes = tensor.read(source)?;
    let value = bytes.first_chunk().map(|&bytes| f32::from_le_bytes(bytes));
    // Above 2^24 a float does not count by ones; PyTorch's count is then the same.
    let value = value.filter(|value| value.fract() == 0.0 && (0.0..1e18).contains(value));
    Ok(value.map(|value| value as u64))
}

impl fmt::Display for ParameterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "`{}`", name.escape_debug()),
        }
    }
}
