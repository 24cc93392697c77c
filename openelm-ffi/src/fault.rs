//! Failures on purpose, for tests: with the feature `inject-faults` some prompts bring them about.

use crate::error::Result;

/// Fails as `prompt` says: `<|panic|>` panics, `<|mlx-fault|>` asks MLX for what it cannot do.
#[cfg(feature = "inject-faults")]
#[allow(clippy::panic, reason = "that is what it is for")]
pub(crate) fn inject(prompt: &str) -> Result<()> {
    if prompt.contains("<|panic|>") {
        panic!("injected");
    }
    if prompt.contains("<|mlx-fault|>") {
        let matrix = mlx_rs::Array::from_slice(&[0.0_f32; 6], &[2, 3]);
        matrix.matmul(&matrix).map_err(openelm_core::Error::from)?;
    }
    Ok(())
}

/// Does nothing in a library that is not for tests.
#[cfg(not(feature = "inject-faults"))]
#[allow(clippy::unnecessary_wraps, reason = "as its other half")]
pub(crate) fn inject(_prompt: &str) -> Result<()> {
    Ok(())
}
