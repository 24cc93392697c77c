//! Options of a new adapter.

use super::{
    adapter::{Adapter, AdapterKind, LoraOptions},
    targets::TargetModules,
};
use crate::{error::Result, model::Model};

/// Options of a new adapter of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterOptions {
    /// LoRA, DoRA or full fine-tuning. Default [`AdapterKind::Lora`].
    pub kind: AdapterKind,
    /// Rank, scale and dropout of LoRA and DoRA. `kind` overrides its
    /// [`dora`](LoraOptions::dora).
    pub lora: LoraOptions,
    /// The matrices to train. Default: every projection of the last 16 layers.
    pub targets: TargetModules,
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self {
            kind: AdapterKind::Lora,
            lora: LoraOptions::default(),
            targets: TargetModules::default(),
        }
    }
}

impl Adapter {
    /// A new adapter for `model`: [`lora`](Self::lora) or [`full`](Self::full), by the kind.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if an option is out of range or matches nothing,
    /// or if a matrix to train in full is quantised.
    pub fn new(model: &Model, options: &AdapterOptions, seed: u64) -> Result<Self> {
        let lora = |dora| {
            let lora = LoraOptions {
                dora,
                ..options.lora.clone()
            };
            Self::lora(model, &options.targets, &lora, seed)
        };
        match options.kind {
            AdapterKind::Lora => lora(false),
            AdapterKind::Dora => lora(true),
            AdapterKind::Full => Self::full(model, &options.targets),
        }
    }
}
