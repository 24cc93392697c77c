//! The cause of a computation whose result is not finite: the first layer that fails, and its
//! tensor, adapter or data type at fault. Nothing here runs unless a result is already wrong.

use mlx_rs::{Array, Dtype as MlxDtype};

use super::model::Model;
use crate::{
    config::tensor_names::{self, EMBEDDING, FINAL_NORM, HEAD, weight},
    error::{Error, Result},
    mlx::Dtype,
};

/// A part of the network, in the order of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Embedding,
    Layer(usize),
    FinalNorm,
    Head,
}

impl Model {
    /// The error of the first part of the network whose output for `tokens` is not finite; `None`
    /// if all outputs are finite. Computes the whole sequence, a layer at a time.
    ///
    /// # Errors
    /// [`Error::Mlx`].
    pub(crate) fn non_finite(&self, tokens: &[u32]) -> Result<Option<Error>> {
        let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32]);
        let mut x = self.embed(&tokens)?;
        if !fits_norm(&x)? {
            return self.cause(Part::Embedding, |plain| plain.embed(&tokens));
        }
        for index in 0..self.config().num_transformer_layers() {
            let y = self.layer(index, &x, None)?;
            if !fits_norm(&y)? {
                return self.cause(Part::Layer(index), |plain| plain.layer(index, &x, None));
            }
            x = y;
        }
        let hidden = self.normed(&x)?;
        if !is_finite(&hidden)? {
            return self.cause(Part::FinalNorm, |plain| plain.normed(&x));
        }
        if !is_finite(&self.logits(&hidden)?)? {
            return self.cause(Part::Head, |plain| plain.logits(&hidden));
        }
        Ok(None)
    }

    /// The error of the logits that are not finite although [`non_finite`](Self::non_finite) finds
    /// no cause.
    pub(crate) fn non_finite_logits(&self) -> Error {
        self.overflow(Part::Head)
    }

    /// The error of `part`, whose output is not finite and whose input is. `run` computes the
    /// output with a model without adapters.
    fn cause(&self, part: Part, run: impl FnOnce(&Self) -> Result<Array>) -> Result<Option<Error>> {
        if let Some(error) = self.adapter_at_fault(part)? {
            return Ok(Some(error));
        }
        if let Some((tensor, value)) = self.tensor_at_fault(part)? {
            return Ok(Some(match (self.dtype(), value) {
                (Dtype::Float16, "infinity") => Error::Dtype {
                    dtype: Dtype::Float16.to_string(),
                    problem: format!(
                        "tensor `{tensor}` exceeds its range (65504); use bfloat16 or float32"
                    ),
                },
                _ => Error::NonFinite {
                    place: part.to_string(),
                    problem: format!("tensor `{tensor}` holds {value}"),
                },
            }));
        }
        let mut plain = self.clone();
        plain.visit_linears(&mut |_, linear| {
            linear.set_adapters(Vec::new());
            Ok(())
        })?;
        let y = run(&plain)?;
        let fits = match part {
            Part::Embedding | Part::Layer(_) => fits_norm(&y)?,
            Part::FinalNorm | Part::Head => is_finite(&y)?,
        };
        Ok(Some(match self.adapters.active.as_slice() {
            [(name, strength), ..] if fits => Error::option(
                "adapter",
                format!("the strength {strength:?} of `{name}` is too large: {part} overflows"),
            ),
            _ => self.overflow(part),
        }))
    }

    /// The error of `part`, whose finite weights give numbers that are too large.
    fn overflow(&self, part: Part) -> Error {
        match self.dtype() {
            Dtype::Float16 => Error::Dtype {
                dtype: Dtype::Float16.to_string(),
                problem: format!(
                    "the output of {part} exceeds its range (65504); use bfloat16 or float32"
                ),
            },
            dtype => Error::NonFinite {
                place: part.to_string(),
                problem: format!("its weights are finite, and its output exceeds {dtype}"),
            },
        }
    }

    /// The first tensor of `part` that is not finite, with NaN or infinity, its value.
    fn tensor_at_fault(&self, part: Part) -> Result<Option<(String, &'static str)>> {
        let mut found = None;
        let mut model = self.clone();
        model.visit_linears(&mut |name, linear| {
            if found.is_none() && part.holds(name) {
                found = value_at_fault(&linear.matrix.float32()?)?.map(|at| (weight(name), at));
            }
            Ok(())
        })?;
        model.visit_norms(&mut |name, norm| {
            if found.is_none() && part.holds(name) {
                found = value_at_fault(norm)?.map(|at| (weight(name), at));
            }
            Ok(false)
        })?;
        // A tied head is the embedding.
        Ok(found.map(|(name, at)| match name.as_str() {
            name if name == weight(HEAD) && self.config().share_input_output_layers() => {
                (weight(EMBEDDING), at)
            }
            _ => (name, at),
        }))
    }

    /// The error of the first active adapter with a tensor in `part` that is not finite.
    fn adapter_at_fault(&self, part: Part) -> Result<Option<Error>> {
        for (name, _) in &self.adapters.active {
            let Some(named) = self.adapters.all.iter().find(|named| named.name == *name) else {
                continue;
            };
            let tied_head = named.tied_head && part == Part::Head;
            let mut tensors = Vec::new();
            for (stem, (module, _)) in &named.modules {
                if part.holds(stem) || tied_head && stem == EMBEDDING {
                    tensors.push((format!("{stem}.lora_a"), module.lora_a.clone()));
                    tensors.push((format!("{stem}.lora_b"), module.lora_b.clone()));
                    tensors.extend(module.m.iter().map(|m| (format!("{stem}.m"), m.clone())));
                }
            }
            for (tensor, array) in &named.weights {
                let stem = tensor.strip_suffix(".weight").unwrap_or(tensor);
                if part.holds(stem) {
                    tensors.push((tensor.clone(), array.clone()));
                }
            }
            tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (tensor, array) in &tensors {
                if let Some(value) = value_at_fault(array)? {
                    let problem = format!("tensor `{tensor}` holds {value}");
                    return Ok(Some(Error::adapter(name, problem)));
                }
            }
        }
        Ok(None)
    }
}

impl Part {
    /// True if the matrix or norm `name` belongs to this part.
    fn holds(self, name: &str) -> bool {
        match self {
            Self::Embedding => name == EMBEDDING,
            Self::Layer(index) => {
                tensor_names::parse_layer(name).is_some_and(|(layer, _)| layer == index)
            }
            Self::FinalNorm => name == FINAL_NORM,
            Self::Head => name == HEAD,
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedding => f.write_str("the embedding"),
            Self::Layer(index) => write!(f, "layer {index}"),
            Self::FinalNorm => f.write_str("the final norm"),
            Self::Head => f.write_str("the head"),
        }
    }
}

/// True if all numbers of `x` are finite.
pub(crate) fn is_finite(x: &Array) -> Result<bool> {
    Ok(value_at_fault(x)?.is_none())
}

/// True if all numbers of `x`, and their squares, which a norm adds up, are finite.
pub(super) fn fits_norm(x: &Array) -> Result<bool> {
    let x = x.as_dtype(MlxDtype::Float32)?;
    is_finite(&x.square()?.sum(None)?)
}

/// NaN or infinity, if `array` holds one.
pub(crate) fn value_at_fault(array: &Array) -> Result<Option<&'static str>> {
    let holds = |flags: Array| -> Result<bool> { Ok(flags.any(None)?.try_item_exact::<bool>()?) };
    Ok(if holds(array.is_nan()?)? {
        Some("NaN")
    } else if holds(array.is_inf()?)? {
        Some("infinity")
    } else {
        None
    })
}
