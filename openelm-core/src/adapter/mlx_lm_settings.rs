//! The settings of mlx-lm's `adapter_config.json`, of all its versions.
//!
//! Since version 0.20 (`fine_tune_type`), a product is multiplied by `scale`. Before, `use_dora`
//! chose DoRA, and there was an `alpha`: a product was multiplied by `scale * alpha / rank`, or by
//! `alpha / rank` without a scale.

use std::path::Path;

use serde::Deserialize;

use super::adapter::AdapterKind;
use crate::{
    error::{Error, Result},
    json,
    text_file::{self, MAX_SETTINGS},
};

/// The settings that decide the result; mlx-lm stores all its training options beside them.
pub(super) struct Settings {
    pub(super) kind: AdapterKind,
    pub(super) dropout: f32,
    pub(super) tied_head: bool,
    parameters: LoraParameters,
    /// True before `fine_tune_type` existed.
    is_old: bool,
}

/// The keys of the file. A key that is null is absent.
#[derive(Deserialize)]
struct File {
    fine_tune_type: Option<String>,
    use_dora: Option<bool>,
    lora_parameters: Option<LoraParameters>,
    /// OpenELM's own key. mlx-lm always adapts a tied head with the embedding.
    tied_head: Option<bool>,
    lora_rank: Option<f64>,
    lora_scale: Option<f32>,
    lora_alpha: Option<f32>,
    lora_dropout: Option<f32>,
}

#[derive(Deserialize, Default)]
struct LoraParameters {
    #[serde(alias = "r")]
    rank: Option<f64>,
    scale: Option<f32>,
    alpha: Option<f32>,
    dropout: Option<f32>,
}

impl Settings {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Adapter`] if it is malformed, or two keys contradict each other.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::adapter(path, problem);
        let text = text_file::read(path, MAX_SETTINGS, wrong)?;
        let file: File = json::parse(&text).map_err(|error| wrong(error.to_string()))?;
        Self::of(file).map_err(wrong)
    }

    fn of(file: File) -> Result<Self, String> {
        let kind = match (file.fine_tune_type.as_deref(), file.use_dora) {
            (None, Some(true)) => AdapterKind::Dora,
            (None, _) => AdapterKind::Lora,
            (Some("lora"), Some(true)) => {
                return Err("`use_dora` is true, `fine_tune_type` is `lora`".into());
            }
            (Some("lora"), _) => AdapterKind::Lora,
            (Some("dora"), _) => AdapterKind::Dora,
            (Some("full"), _) => AdapterKind::Full,
            (Some(other), _) => {
                return Err(format!(
                    "`fine_tune_type`: expected lora, dora or full, found `{other}`"
                ));
            }
        };
        let mut parameters = file.lora_parameters.unwrap_or_default();
        parameters.rank = one(("rank", parameters.rank), ("lora_rank", file.lora_rank))?;
        parameters.scale = one(("scale", parameters.scale), ("lora_scale", file.lora_scale))?;
        parameters.alpha = one(("alpha", parameters.alpha), ("lora_alpha", file.lora_alpha))?;
        let nested = parameters.dropout;
        parameters.dropout = one(("dropout", nested), ("lora_dropout", file.lora_dropout))?;
        if kind != AdapterKind::Full && parameters.scale.is_none() && parameters.alpha.is_none() {
            return Err("`lora_parameters` with their `scale` or `alpha` are missing".into());
        }
        Ok(Self {
            kind,
            dropout: parameters.dropout.unwrap_or(0.0),
            tied_head: file.tied_head.unwrap_or(true),
            parameters,
            is_old: file.fine_tune_type.is_none(),
        })
    }

    /// The factor of the product of the matrix `name`, of rank `rank`.
    pub(super) fn scale(&self, name: &str, rank: usize) -> Result<f32, String> {
        let LoraParameters {
            rank: stated,
            scale,
            alpha,
            ..
        } = self.parameters;
        if let Some(stated) = stated.filter(|stated| *stated != rank as f64) {
            return Err(format!(
                "`rank` is {stated}, the tensors of `{name}` have rank {rank}"
            ));
        }
        let per_rank = |alpha: f32| alpha / rank as f32;
        match (scale, alpha) {
            (Some(scale), Some(alpha)) if self.is_old => Ok(scale * per_rank(alpha)),
            (Some(scale), _) => Ok(scale),
            (None, Some(alpha)) => Ok(per_rank(alpha)),
            (None, None) => Err("`scale` is missing".into()),
        }
    }
}

/// The value of two keys of the same meaning.
fn one<T: PartialEq + std::fmt::Display>(
    (first, one): (&str, Option<T>),
    (second, two): (&str, Option<T>),
) -> Result<Option<T>, String> {
    match (one, two) {
        (Some(one), Some(two)) if one != two => Err(format!(
            "`{first}` in `lora_parameters` is {one}, `{second}` is {two}"
        )),
        (one, two) => Ok(one.or(two)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings(file: Value) -> Result<Settings, String> {
        Settings::of(serde_json::from_value(file).unwrap())
    }

    #[test]
    fn settings_of_every_version_are_read() {
        use AdapterKind::{Dora, Full, Lora};
        let parameters = json!({"rank": 8, "scale": 10.0, "dropout": 0.5, "keys": ["proj_1"]});
        let alpha = json!({"rank": 8, "alpha": 16, "scale": 10.0, "dropout": 0.0});
        for (file, kind, scale) in [
            (
                json!({"fine_tune_type": "lora", "lora_parameters": parameters}),
                Lora,
                10.0,
            ),
            (
                json!({"fine_tune_type": "dora", "lora_parameters": parameters}),
                Dora,
                10.0,
            ),
            (
                json!({"fine_tune_type": "lora", "lora_parameters": alpha}),
                Lora,
                10.0,
            ),
            (
                json!({"fine_tune_type": null, "lora_parameters": parameters}),
                Lora,
                10.0,
            ),
            (
                json!({"lora_layers": 16, "lora_parameters": alpha}),
                Lora,
                20.0,
            ),
            (
                json!({"use_dora": true, "num_layers": 4, "lora_parameters": alpha}),
                Dora,
                20.0,
            ),
            (
                json!({"use_dora": false, "num_lora_layers": 4, "lora_parameters": parameters}),
                Lora,
                10.0,
            ),
            (
                json!({"lora_layers": 4, "lora_parameters": {"alpha": 16}}),
                Lora,
                2.0,
            ),
            (
                json!({"lora_layers": 4, "lora_rank": 8, "lora_alpha": 4.0}),
                Lora,
                0.5,
            ),
            (
                json!({"lora_parameters": {"r": 8, "scale": 3, "alpha": null}}),
                Lora,
                3.0,
            ),
            (
                json!({"fine_tune_type": "full", "lora_parameters": null, "lora_scale": 1}),
                Full,
                1.0,
            ),
        ] {
            let settings = settings(file.clone()).unwrap();
            assert_eq!(settings.kind, kind, "{file}");
            assert_eq!(settings.scale("x", 8).unwrap(), scale, "{file}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_both_values() {
        let problem = |file: Value| settings(file).err().unwrap();
        assert_eq!(
            problem(json!({"fine_tune_type": "lora", "use_dora": true})),
            "`use_dora` is true, `fine_tune_type` is `lora`"
        );
        assert_eq!(
            problem(json!({"lora_rank": 4, "lora_parameters": {"rank": 8, "scale": 1}})),
            "`rank` in `lora_parameters` is 8, `lora_rank` is 4"
        );
        assert_eq!(
            problem(json!({"lora_parameters": {"rank": 8}})),
            "`lora_parameters` with their `scale` or `alpha` are missing"
        );
        let stated = settings(json!({"lora_parameters": {"rank": 8, "scale": 1}})).unwrap();
        assert_eq!(
            stated.scale("x", 4).unwrap_err(),
            "`rank` is 8, the tensors of `x` have rank 4"
        );
    }
}
