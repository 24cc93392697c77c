//! Injected failures for tests: with the feature `inject-faults`, three prompts cause a failure or a delay.

use crate::error::Result;

/// A step of a slow device, of a prompt with `<|slow|>`.
#[cfg(feature = "inject-faults")]
const SLOW: std::time::Duration = std::time::Duration::from_secs(2);

/// Takes two seconds if the prompt contains `<|slow|>`; panics if it contains `<|panic|>`; causes an MLX error in the next step if it contains `<|mlx-fault|>`.
#[cfg(feature = "inject-faults")]
#[allow(clippy::panic, reason = "tests need a panic")]
pub(crate) fn inject(prompt: &str) -> Result<()> {
    if prompt.contains("<|slow|>") {
        std::thread::sleep(SLOW);
    }
    if prompt.contains("<|panic|>") {
        panic!("injected");
    }
    if prompt.contains("<|mlx-fault|>") {
        // The second report is for the operation after the failed one, as on a GPU.
        crate::mlx::recovery::faults::inject(2);
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
