//! Adapters of a loaded model: methods of [`LanguageModel`].

use openelm_core::adapter::Adapter;

use crate::{error::Result, language_model::LanguageModel, worker};

/// An active adapter and its strength: 1 is the strength of training.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "documented by the record")]
pub struct AdapterStrength {
    pub name: String,
    pub strength: f32,
}

#[uniffi::export]
impl LanguageModel {
    /// Adds the adapter in `folder` (of this library, mlx-lm or PEFT) as `name` and makes it the
    /// only active adapter. Running generations continue without it.
    ///
    /// # Errors
    /// Errors of the folder; [`Error::InvalidAdapter`](crate::Error::InvalidAdapter) if it does not fit,
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) if the name is taken.
    pub async fn add_adapter(&self, name: String, folder: String) -> Result<()> {
        let id = self.id();
        worker::call(move |models| {
            let model = models.model(id)?;
            Ok(model
                .model_mut()
                .add_adapter(&name, &Adapter::load(&folder)?)?)
        })
        .await
    }

    /// Makes exactly these adapters active. Their outputs are summed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for an unknown name or an invalid strength.
    pub async fn set_adapters(&self, active: Vec<AdapterStrength>) -> Result<()> {
        let id = self.id();
        worker::call(move |models| {
            let active: Vec<(&str, f32)> = active
                .iter()
                .map(|adapter| (adapter.name.as_str(), adapter.strength))
                .collect();
            Ok(models.model(id)?.model_mut().set_adapters(&active)?)
        })
        .await
    }

    /// Removes the adapter `name`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for an unknown name.
    pub async fn remove_adapter(&self, name: String) -> Result<()> {
        let id = self.id();
        worker::call(move |models| Ok(models.model(id)?.model_mut().remove_adapter(&name)?)).await
    }

    /// The names of all adapters, in the order they were added.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn adapters(&self) -> Result<Vec<String>> {
        let id = self.id();
        worker::call_always(move |models| {
            let names = models.model(id)?.model().adapters();
            Ok(names.into_iter().map(str::to_owned).collect())
        })
        .await
    }

    /// The active adapters.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn active_adapters(&self) -> Result<Vec<AdapterStrength>> {
        let id = self.id();
        worker::call_always(move |models| {
            let active = models.model(id)?.model().active_adapters().iter();
            let active = active.map(|(name, strength)| AdapterStrength {
                name: name.clone(),
                strength: *strength,
            });
            Ok(active.collect())
        })
        .await
    }
}
