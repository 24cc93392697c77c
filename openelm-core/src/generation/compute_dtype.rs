//! The dtype of a model's computation.

use crate::{
    config::Config,
    error::{Error, Result},
    mlx::{Device, Dtype},
};

/// The dtype of the computation: `requested`, or the default for weights stored as `stored`.
///
/// The default is `Float32` on a CPU, where MLX's 16-bit kernels are several times slower, and 16
/// bits on a GPU, where the bandwidth of the memory limits the speed: `Float16` for weights stored
/// so (except for a model that overflows its range), and `Bfloat16` for others.
///
/// # Errors
/// [`Error::Dtype`] if the activations of `config` exceed the range of `requested`, [`Error::Mlx`]
/// if MLX has no device.
pub fn compute_dtype(requested: Option<Dtype>, stored: Dtype, config: &Config) -> Result<Dtype> {
    let dtype = match requested {
        Some(dtype) => dtype,
        None => default_for(stored, Device::current()?, config),
    };
    check(dtype, config)?;
    Ok(dtype)
}

/// Like [`compute_dtype`] for a model that is trained: the default is never `Float16`, because its
/// range is too small for gradients.
///
/// # Errors
/// As [`compute_dtype`].
pub fn training_dtype(requested: Option<Dtype>, stored: Dtype, config: &Config) -> Result<Dtype> {
    let dtype = compute_dtype(requested, stored, config)?;
    Ok(match (requested, dtype) {
        (None, Dtype::Float16) => Dtype::Bfloat16,
        _ => dtype,
    })
}

fn default_for(stored: Dtype, device: Device, config: &Config) -> Dtype {
    match (device, stored) {
        (Device::Cpu, _) => Dtype::Float32,
        (Device::Gpu, Dtype::Float16) if !overflows_float16(config) => Dtype::Float16,
        (Device::Gpu, _) => Dtype::Bfloat16,
    }
}

/// Refuses a dtype whose range the model's activations exceed.
fn check(dtype: Dtype, config: &Config) -> Result<()> {
    if dtype == Dtype::Float16 && overflows_float16(config) {
        return Err(Error::Dtype {
            dtype: dtype.to_string(),
            problem: "the activations of OpenELM-3B exceed its range (65504); use bfloat16".into(),
        });
    }
    Ok(())
}

/// Apple's release notes: "OpenELM 3B should use BFloat16"; smaller sizes fit.
fn overflows_float16(config: &Config) -> bool {
    config.parameter_count() > 2_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn rejects_float16_for_3b_only() {
        let error = check(Dtype::Float16, &Preset::Size3B.config()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("float16") && message.contains("bfloat16"),
            "{message}"
        );
        for preset in [Preset::Size270M, Preset::Size450M, Preset::Size1_1B] {
            check(Dtype::Float16, &preset.config()).unwrap();
        }
    }

    #[test]
    fn default_is_float32_on_cpu_and_16_bits_on_gpu() {
        use Device::{Cpu, Gpu};
        use Dtype::{Bfloat16, Float16, Float32};
        let (small, large) = (Preset::Size270M.config(), Preset::Size3B.config());
        for (stored, device, config, expected) in [
            (Bfloat16, Cpu, &small, Float32),
            (Float16, Cpu, &small, Float32),
            (Float32, Cpu, &large, Float32),
            (Float32, Gpu, &small, Bfloat16),
            (Float32, Gpu, &large, Bfloat16),
            (Bfloat16, Gpu, &small, Bfloat16),
            (Float16, Gpu, &small, Float16),
            (Float16, Gpu, &large, Bfloat16),
        ] {
            assert_eq!(default_for(stored, device, config), expected);
        }
    }

    #[test]
    fn training_is_in_float16_only_on_request() {
        use Dtype::{Bfloat16, Float16, Float32};
        let config = Preset::Size270M.config();
        let dtype = |requested, stored| training_dtype(requested, stored, &config).unwrap();
        let cpu = Device::Cpu.select();
        assert_eq!(dtype(None, Float16), Float32);
        drop(cpu);
        let _gpu = Device::Gpu.select();
        for stored in [Float32, Float16, Bfloat16] {
            assert_eq!(dtype(None, stored), Bfloat16);
        }
        assert_eq!(dtype(Some(Float32), Float16), Float32);
        assert_eq!(dtype(Some(Float16), Float32), Float16);
    }
}
