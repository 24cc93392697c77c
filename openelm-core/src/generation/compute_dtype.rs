//! The dtype of a model's computation.

use crate::{
    config::Config,
    error::{Error, Result},
    mlx::{Device, Dtype},
};

/// The dtype of the computation: `requested`, or the default for weights stored as `stored`.
///
/// The default is `Float32` on a CPU, where MLX's 16-bit kernels are several times slower, and the
/// stored type on a GPU (`Bfloat16` in place of `Float16` for a model that overflows float16).
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

fn default_for(stored: Dtype, device: Device, config: &Config) -> Dtype {
    match device {
        Device::Cpu => Dtype::Float32,
        Device::Gpu if stored == Dtype::Float16 && overflows_float16(config) => Dtype::Bfloat16,
        Device::Gpu => stored,
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
    fn default_is_float32_on_cpu_and_the_stored_type_on_gpu() {
        use Device::{Cpu, Gpu};
        use Dtype::{Bfloat16, Float16, Float32};
        let (small, large) = (Preset::Size270M.config(), Preset::Size3B.config());
        for (stored, device, config, expected) in [
            (Bfloat16, Cpu, &small, Float32),
            (Bfloat16, Gpu, &small, Bfloat16),
            (Float16, Gpu, &small, Float16),
            (Float16, Gpu, &large, Bfloat16),
        ] {
            assert_eq!(default_for(stored, device, config), expected);
        }
    }
}
