//! The kind of device that MLX computes on.
//!
//! Code that differs between devices takes a [`Device`] or calls [`Device::current`]. A test selects
//! a device for its thread, so the GPU's branches also run on MLX's CPU backend.

use std::{cell::Cell, fmt, marker::PhantomData};

use crate::error::Result;

/// The kind of device that MLX computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The GPU: Metal on Apple systems.
    Gpu,
}

impl Device {
    /// The device for which this thread's code is chosen: the one of [`select`](Self::select), or
    /// MLX's default device, which is the GPU if there is one.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if MLX has no device, or no kernels for its GPU.
    pub fn current() -> Result<Self> {
        if let Some(device) = SELECTED.get() {
            return Ok(device);
        }
        Ok(match mlx_rs::Device::try_default()?.get_type()? {
            mlx_rs::DeviceType::Cpu => Self::Cpu,
            mlx_rs::DeviceType::Gpu => {
                // The allocator opens the GPU first: it reports missing kernels, which a stream
                // reports as an index out of range.
                mlx_rs::memory::active_memory()?;
                Self::Gpu
            }
        })
    }

    /// Chooses the code for this device on this thread, until the value is dropped. MLX computes on
    /// its default device as before: on a system without a GPU, the dtypes, chunk sizes and graphs
    /// of the GPU are tested on the CPU.
    #[must_use = "the selection ends when the value is dropped"]
    pub fn select(self) -> SelectedDevice {
        SelectedDevice {
            previous: SELECTED.replace(Some(self)),
            of_thread: PhantomData,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        })
    }
}

/// A device selected by [`Device::select`] for the thread that made the selection.
#[derive(Debug)]
pub struct SelectedDevice {
    previous: Option<Device>,
    /// The value must be dropped by its thread.
    of_thread: PhantomData<*const ()>,
}

impl Drop for SelectedDevice {
    fn drop(&mut self) {
        SELECTED.set(self.previous);
    }
}

thread_local! {
    static SELECTED: Cell<Option<Device>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_holds_for_its_thread_until_it_is_dropped() {
        let default = Device::current().unwrap();
        let gpu = Device::Gpu.select();
        assert_eq!(Device::current().unwrap(), Device::Gpu);
        {
            let _cpu = Device::Cpu.select();
            assert_eq!(Device::current().unwrap(), Device::Cpu);
        }
        assert_eq!(Device::current().unwrap(), Device::Gpu);
        let other = std::thread::spawn(|| Device::current().unwrap());
        assert_eq!(other.join().unwrap(), default);
        drop(gpu);
        assert_eq!(Device::current().unwrap(), default);
    }
}
