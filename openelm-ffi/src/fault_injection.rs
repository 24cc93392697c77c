//! Injected failures for tests: with the feature `inject-faults`, two prompts cause a failure.

use crate::error::Result;

/// Panics if the prompt contains `<|panic|>`; causes an MLX error if it contains `<|mlx-fault|>`.
#[cfg(feature = "inject-faults")]
#[allow(clippy::panic, reason = "tests need a panic")]
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

/// Does nothing without the feature.
#[cfg(not(feature = "inject-faults"))]
#[allow(
    clippy::unnecessary_wraps,
    reason = "same signature as with the feature"
)]
pub(crate) fn inject(_prompt: &str) -> Result<()> {
    Ok(())
}
