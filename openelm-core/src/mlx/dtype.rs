//! The floating-point types a model can be stored and computed in.

use std::{fmt, str::FromStr};

use crate::{
    config::Config,
    error::{Error, Result},
};

/// A floating-point type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit IEEE float.
    Float32,
    /// 16-bit IEEE float: largest value 65,504.
    Float16,
    /// 16-bit brain float: range of `Float32`, 8 bits of precision.
    Bfloat16,
}

impl Dtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }

    /// The type to compute in: `asked`, or the default for weights stored as `stored`.
    ///
    /// # Errors
    /// [`Error::Dtype`] if the activations of `config` exceed the range of `asked`,
    /// [`Error::Mlx`] if MLX has no device.
    pub fn choose(asked: Option<Self>, stored: Self, config: &Config) -> Result<Self> {
        let dtype = match asked {
            Some(dtype) => dtype,
            None => Self::default_for(stored, Device::current()?, config),
        };
        dtype.check(config)?;
        Ok(dtype)
    }

    /// The type to compute in when the caller names none: `Float32` on a CPU device, where MLX's
    /// 16-bit kernels are several times slower, and the stored type on a GPU (`Bfloat16` in place
    /// of `Float16` for a model that overflows in it).
    fn default_for(stored: Self, device: Device, config: &Config) -> Self {
        match device {
            Device::Cpu => Self::Float32,
            Device::Gpu if stored == Self::Float16 && overflows_float16(config) => Self::Bfloat16,
            Device::Gpu => stored,
        }
    }

    /// Refuses a type whose range the model's activations exceed.
    fn check(self, config: &Config) -> Result<()> {
        if self == Self::Float16 && overflows_float16(config) {
            return Err(Error::Dtype {
                dtype: self.to_string(),
                problem: "the activations of OpenELM-3B exceed its range (65504); use bfloat16"
                    .into(),
            });
        }
        Ok(())
    }

    pub(crate) fn mlx(self) -> mlx_rs::Dtype {
        match self {
            Self::Float32 => mlx_rs::Dtype::Float32,
            Self::Float16 => mlx_rs::Dtype::Float16,
            Self::Bfloat16 => mlx_rs::Dtype::Bfloat16,
        }
    }
}

/// Apple's notes on the release: "OpenELM 3B should use BFloat16"; smaller sizes fit.
fn overflows_float16(config: &Config) -> bool {
    config.parameter_count() > 2_000_000_000
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "float32" | "f32" | "fp32" => Ok(Self::Float32),
            "float16" | "f16" | "fp16" => Ok(Self::Float16),
            "bfloat16" | "bf16" => Ok(Self::Bfloat16),
            _ => Err(Error::Dtype {
                dtype: name.into(),
                problem: "expected float32, float16 or bfloat16".into(),
            }),
        }
    }
}

/// The kind of device that MLX computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The GPU: Metal on Apple systems.
    Gpu,
}

impl Device {
    /// The device that MLX uses by default: the GPU where there is one.
    ///
    /// # Errors
    /// [`Error::Mlx`] if MLX has no device.
    pub fn current() -> Result<Self> {
        Ok(match mlx_rs::Device::try_default()?.get_type()? {
            mlx_rs::DeviceType::Cpu => Self::Cpu,
            mlx_rs::DeviceType::Gpu => Self::Gpu,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn rejects_float16_for_3b_only() {
        let message = Dtype::Float16
            .check(&Preset::Size3B.config())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("float16") && message.contains("bfloat16"),
            "{message}"
        );
        for preset in [Preset::Size270M, Preset::Size450M, Preset::Size1_1B] {
            Dtype::Float16.check(&preset.config()).unwrap();
        }
    }

    #[test]
    fn default_is_float32_on_cpu_and_the_stored_type_on_gpu() {
        let (small, large) = (Preset::Size270M.config(), Preset::Size3B.config());
        let default = Dtype::default_for;
        assert_eq!(
            default(Dtype::Bfloat16, Device::Cpu, &small),
            Dtype::Float32
        );
        assert_eq!(
            default(Dtype::Bfloat16, Device::Gpu, &small),
            Dtype::Bfloat16
        );
        assert_eq!(default(Dtype::Float16, Device::Gpu, &small), Dtype::Float16);
        assert_eq!(
            default(Dtype::Float16, Device::Gpu, &large),
            Dtype::Bfloat16
        );
    }
}
