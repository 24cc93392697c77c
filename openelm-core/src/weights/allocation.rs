//! The memory that reading a checkpoint allocates, from its headers.

use std::{collections::BTreeMap, path::Path};

use super::{
    checkpoint::Checkpoint,
    stored_tensor::{StoredDtype, StoredTensor},
    weights::ReadOptions,
};
use crate::{
    config::Config,
    error::{Error, Result},
    mlx::{Device, Dtype, memory},
};

/// The memory that [`Weights::read`](super::Weights::read) allocates, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The weights. On a CPU, a tensor that needs no cast is mapped and allocates nothing.
    pub(crate) kept: u64,
    /// The largest stored tensor that exists beside the weights while it is cast.
    pub(crate) cast: u64,
}

impl Allocation {
    /// The allocation for `checkpoint`, which has been checked against `config`.
    ///
    /// # Errors
    /// [`Error::Config`] for a bad `quantization` block.
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        config: &Config,
        options: ReadOptions,
        device: Device,
    ) -> Result<Self> {
        let quantization = config.quantization_map()?;
        let dense: BTreeMap<String, Vec<usize>> = config.tensors().into_iter().collect();
        let keeps_half_precision = options.keeps_half_precision(device);
        let mut allocation = Self::default();
        for (name, stored) in checkpoint.tensors() {
            let (stem, part) = name.rsplit_once('.').unwrap_or((name, ""));
            let packed = quantization.as_ref().and_then(|map| map.layer(stem));
            let expands = packed.is_some() && checkpoint.is_packed(stem) && !options.keep_quantized;
            let target = options.dtype_of(stored, keeps_half_precision);
            let size = options.dtype.size() as u64;
            match stored.dtype {
                // Part of the dense matrix, except for the weight.
                _ if expands && part != "weight" => {}
                _ if expands => {
                    let elements = dense.get(name).map_or(0, |shape| elements(shape));
                    allocation.add_cast(elements * size, stored, device);
                }
                StoredDtype::Float(dtype) if dtype != target => {
                    allocation.add_cast(elements(&stored.shape) * size, stored, device);
                }
                _ if device == Device::Cpu && stored.is_mappable() => {}
                _ => allocation.kept += stored.bytes() as u64,
            }
        }
        Ok(allocation)
    }

    /// Refuses an allocation that does not fit into the memory that the system has left, with
    /// `text` bytes that are needed once the weights have been read.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn check_fits(self, folder: &Path, dtype: Dtype, text: u64) -> Result<()> {
        // Nothing is generated while the last tensor is cast.
        let needed = self.kept.saturating_add(text.max(self.cast));
        match memory::allocatable_bytes() {
            Some(available) if needed > available => Err(Error::Memory {
                part: format!("{}: the model in {dtype}", folder.display()),
                needed,
                available,
            }),
            _ => Ok(()),
        }
    }

    fn add_cast(&mut self, bytes: u64, stored: &StoredTensor, device: Device) {
        self.kept += bytes;
        // On a CPU the stored tensor is mapped.
        if device == Device::Gpu {
            self.cast = self.cast.max(stored.bytes() as u64);
        }
    }
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&side| side as u64).product()
}

#[cfg(test)]
mod tests {
    use openelm_testing::tales;

    use super::*;

    #[test]
    fn counts_casts_and_copies_and_no_mapped_tensors() {
        let folder = tales();
        let config = Config::load(&folder).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let of = |dtype, device| {
            let options = ReadOptions {
                dtype,
                keep_quantized: false,
            };
            let allocation = Allocation::of(&checkpoint, &config, options, device).unwrap();
            (allocation.kept, allocation.cast)
        };
        // Parameters in bfloat16; the largest matrix has 786,432 bytes.
        let parameters = 2_497_344;
        assert_eq!(of(Dtype::Bfloat16, Device::Cpu), (0, 0));
        assert_eq!(of(Dtype::Float32, Device::Cpu), (4 * parameters, 0));
        assert_eq!(of(Dtype::Float16, Device::Cpu), (2 * parameters, 0));
        assert_eq!(of(Dtype::Bfloat16, Device::Gpu), (2 * parameters, 0));
        assert_eq!(of(Dtype::Float32, Device::Gpu), (4 * parameters, 786_432));
    }
}
