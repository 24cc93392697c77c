//! The matrices of a model to train.

use regex::Regex;

use crate::{
    config::{
        Config,
        tensor_names::{EMBEDDING, parse_layer},
    },
    error::{Error, Result},
};

/// Default number of trained layers, as in mlx-lm.
const DEFAULT_LAYERS: usize = 16;

/// The parts of a model to train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetModules {
    /// Number of layers, counted from the last one; `None` is all. Default 16, as in mlx-lm, or all
    /// if the model has fewer.
    pub num_layers: Option<usize>,
    /// The matrices of these layers. Default [`Keys::AllProjections`].
    pub keys: Keys,
}

impl Default for TargetModules {
    fn default() -> Self {
        Self {
            num_layers: Some(DEFAULT_LAYERS),
            keys: Keys::default(),
        }
    }
}

/// A choice of matrices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keys {
    /// Every projection of the trained layers: `qkv_proj`, `out_proj`, `proj_1`, `proj_2`.
    #[default]
    AllProjections,
    /// Matrices whose name is, or ends in, one of these: `attn.qkv_proj`, `proj_2`,
    /// `token_embeddings` (which the number of layers does not exclude).
    Names(Vec<String>),
    /// Matrices whose whole name matches the expression, such as
    /// `transformer\.layers\.(0|1)\.attn\.(qkv|out)_proj`.
    Regex(String),
}

impl Keys {
    /// CoreNet's choice: the embedding and every projection (`peft_configs/openelm_lora_*.yaml`).
    pub fn corenet() -> Self {
        let names = [
            "token_embeddings",
            "qkv_proj",
            "out_proj",
            "proj_1",
            "proj_2",
        ];
        Self::Names(names.map(str::to_owned).to_vec())
    }
}

impl TargetModules {
    /// Every projection of every layer.
    pub fn all_layers() -> Self {
        Self {
            num_layers: None,
            ..Self::default()
        }
    }

    /// The selected matrices of `config`: names without `.weight` and shapes `[out, in]`, in the
    /// model's order.
    ///
    /// # Errors
    /// [`Error::Option`] if a name or the expression matches nothing, or the model has fewer
    /// layers.
    pub fn matrices(&self, config: &Config) -> Result<Vec<(String, [usize; 2])>> {
        let first = self.first_layer(config)?;
        let matrices: Vec<(String, [usize; 2])> = config
            .tensors()
            .into_iter()
            .filter_map(|(name, shape)| match shape.as_slice() {
                &[out, input] => Some((name.strip_suffix(".weight")?.to_owned(), [out, input])),
                _ => None,
            })
            .filter(|(name, _)| layer_of(name).is_none_or(|layer| layer >= first))
            .collect();
        let selected: Box<dyn Fn(&str) -> bool> = match &self.keys {
            Keys::AllProjections => Box::new(|name: &str| layer_of(name).is_some()),
            Keys::Names(keys) => {
                if let Some(key) = keys
                    .iter()
                    .find(|key| !matrices.iter().any(|(name, _)| is_named(name, key)))
                {
                    return Err(unmatched("keys", key));
                }
                Box::new(|name: &str| keys.iter().any(|key| is_named(name, key)))
            }
            Keys::Regex(pattern) => {
                let whole = format!("^(?:{pattern})$");
                let regex = Regex::new(&whole)
                    .map_err(|error| Error::option("keys_regex", error.to_string()))?;
                if !matrices.iter().any(|(name, _)| regex.is_match(name)) {
                    let full = matrices.last().map_or(EMBEDDING, |(name, _)| name);
                    let problem = format!(
                        "`{pattern}` matches no full name, such as `{full}`, of a matrix in the \
                         layers chosen; `.*\\.qkv_proj` matches an end"
                    );
                    return Err(Error::option("keys_regex", problem));
                }
                Box::new(move |name: &str| regex.is_match(name))
            }
        };
        let matrices: Vec<_> = matrices
            .into_iter()
            .filter(|(name, _)| selected(name))
            .collect();
        if matrices.is_empty() {
            return Err(unmatched("keys", "nothing"));
        }
        Ok(matrices)
    }

    /// The tensors that full fine-tuning trains: every tensor of the selected layers, as mlx-lm
    /// unfreezes them; if all layers are selected, every tensor of the model. With
    /// [`Keys::Names`] and [`Keys::Regex`], the selected matrices.
    pub(crate) fn weights(&self, config: &Config) -> Result<Vec<String>> {
        let names: Vec<String> = match self.keys {
            Keys::AllProjections => {
                let first = self.first_layer(config)?;
                let names = config.tensors().into_iter().map(|(name, _)| name);
                let all = first == 0;
                let selected = |name: &String| layer_of(name).map_or(all, |layer| layer >= first);
                names.filter(selected).collect()
            }
            _ => {
                let matrices = self.matrices(config)?.into_iter();
                matrices.map(|(name, _)| format!("{name}.weight")).collect()
            }
        };
        Ok(names)
    }

    fn first_layer(&self, config: &Config) -> Result<usize> {
        let layers = config.num_transformer_layers();
        match self.num_layers {
            None => Ok(0),
            Some(0) => Err(Error::at_least("num_layers", 1, 0)),
            Some(count) if count > layers && count != DEFAULT_LAYERS => Err(Error::option(
                "num_layers",
                format!("expected at most the model's {layers}, found {count}"),
            )),
            Some(count) => Ok(layers.saturating_sub(count)),
        }
    }
}

/// Index of the layer of `name`.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    Some(parse_layer(name)?.0)
}

/// The part of `name` within its layer, as in mlx-lm's `keys`.
pub(crate) fn key_of(name: &str) -> &str {
    parse_layer(name).map_or(name, |(_, part)| part)
}

fn is_named(name: &str, key: &str) -> bool {
    name == key
        || name
            .strip_suffix(key)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn unmatched(option: &'static str, key: &str) -> Error {
    Error::option(
        option,
        format!(
            "`{key}` names no matrix of this model in the layers chosen; known are qkv_proj, \
             out_proj, proj_1, proj_2 and {EMBEDDING}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn an_expression_must_match_a_full_name() {
        let config = Preset::Size270M.config();
        let matrices = |pattern: &str| {
            let keys = Keys::Regex(pattern.into());
            let num_layers = None;
            TargetModules { num_layers, keys }.matrices(&config)
        };
        let text = matrices("qkv_proj").unwrap_err().to_string();
        for part in ["`qkv_proj` matches no full name", "`.*\\.qkv_proj` matches"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(matrices(".*\\.qkv_proj").unwrap().len(), 16);
    }
}
