//! Adapters of a loaded model: methods of [`LanguageModel`].

use crate::{error::Result, language_model::LanguageModel};

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
        Ok(self.handle().add_adapter(name, folder.into()).await?)
    }

    /// Makes exactly these adapters active. Their outputs are summed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for an unknown name or an invalid strength.
    pub async fn set_adapters(&self, active: Vec<AdapterStrength>) -> Result<()> {
        let active = active
            .into_iter()
            .map(|adapter| (adapter.name, adapter.strength));
        Ok(self.handle().set_adapters(active.collect()).await?)
    }

    /// Removes the adapter `name`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for an unknown name.
    pub async fn remove_adapter(&self, name: String) -> Result<()> {
        Ok(self.handle().remove_adapter(name).await?)
    }

    /// The names of all adapters, in the order they were added.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn adapters(&self) -> Result<Vec<String>> {
        Ok(self.handle().adapters()?)
    }

    /// The active adapters.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn active_adapters(&self) -> Result<Vec<AdapterStrength>> {
        let active = self.handle().active_adapters()?.into_iter();
        let active = active.map(|(name, strength)| AdapterStrength { name, strength });
        Ok(active.collect())
    }
}
