//! The adapters of a loaded model.

use openelm_core::adapter::Adapter;

use crate::{engine::Engine, error::Result, worker};

/// An adapter that is active, and how strong: 1 as it was trained.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "two words")]
pub struct AdapterStrength {
    pub name: String,
    pub strength: f32,
}

#[uniffi::export]
impl Engine {
    /// Takes in the adapter in `folder` (openelm's, mlx-lm's or PEFT's) as `name` and makes it the
    /// active one, alone. Generations that run go on without it.
    ///
    /// # Errors
    /// What is wrong with the folder; [`EngineError::Adapter`](crate::EngineError::Adapter) if it
    /// does not fit, [`EngineError::Option`](crate::EngineError::Option) if the name is taken.
    pub async fn add_adapter(&self, name: String, folder: String) -> Result<()> {
        let number = self.number();
        worker::call(move |models| {
            let model = models.model(number)?;
            Ok(model
                .model_mut()
                .add_adapter(&name, &Adapter::load(&folder)?)?)
        })
        .await
    }

    /// Makes exactly these adapters active, added up.
    ///
    /// # Errors
    /// [`EngineError::Option`](crate::EngineError::Option) for a name that is not known or an
    /// impossible strength.
    pub async fn set_adapters(&self, active: Vec<AdapterStrength>) -> Result<()> {
        let number = self.number();
        worker::call(move |models| {
            let active: Vec<(&str, f32)> = active
                .iter()
                .map(|one| (one.name.as_str(), one.strength))
                .collect();
            Ok(models.model(number)?.model_mut().set_adapters(&active)?)
        })
        .await
    }

    /// Takes the adapter `name` off and forgets it.
    ///
    /// # Errors
    /// [`EngineError::Option`](crate::EngineError::Option) if there is none.
    pub async fn remove_adapter(&self, name: String) -> Result<()> {
        let number = self.number();
        worker::call(move |models| Ok(models.model(number)?.model_mut().remove_adapter(&name)?))
            .await
    }

    /// The names of the adapters it has, in the order they came.
    ///
    /// # Errors
    /// [`EngineError::Unloaded`](crate::EngineError::Unloaded).
    pub async fn adapters(&self) -> Result<Vec<String>> {
        let number = self.number();
        worker::call_always(move |models| {
            let names = models.model(number)?.model().adapters();
            Ok(names.into_iter().map(str::to_owned).collect())
        })
        .await
    }

    /// The active adapters.
    ///
    /// # Errors
    /// [`EngineError::Unloaded`](crate::EngineError::Unloaded).
    pub async fn active_adapters(&self) -> Result<Vec<AdapterStrength>> {
        let number = self.number();
        worker::call_always(move |models| {
            let active = models.model(number)?.model().active_adapters().iter();
            let active = active.map(|(name, strength)| AdapterStrength {
                name: name.clone(),
                strength: *strength,
            });
            Ok(active.collect())
        })
        .await
    }
}
