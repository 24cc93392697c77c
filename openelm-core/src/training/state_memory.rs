//! The memory of trained parameters, their gradients and the optimizer's state.

use super::{
    optimizer::{Optimizer, OptimizerKind},
    trainer_options::TrainerOptions,
};
use crate::{
    error::{Error, Result},
    mlx::memory,
};

/// Bytes per parameter in f32: weight, gradient, the optimizer's moments, and the moving average.
pub(super) fn bytes_per_parameter(options: &TrainerOptions) -> u64 {
    4 * (2 + moments(&options.optimizer) + u64::from(options.ema_decay.is_some()))
}

/// Refuses to train `parameters` numbers whose state does not fit into the memory that the system
/// has left.
///
/// # Errors
/// [`Error::Memory`].
pub(super) fn check_fits(parameters: u64, options: &TrainerOptions) -> Result<()> {
    let needed = parameters.saturating_mul(bytes_per_parameter(options));
    match memory::allocatable_bytes() {
        Some(available) if needed > available => Err(Error::Memory {
            part: format!("training {parameters} parameters"),
            needed,
            available,
        }),
        _ => Ok(()),
    }
}

/// Numbers that the optimizer keeps for each parameter of a matrix.
fn moments(optimizer: &Optimizer) -> u64 {
    match optimizer.kind {
        OptimizerKind::Adam | OptimizerKind::AdamW => 2,
        OptimizerKind::Lion => 1,
        OptimizerKind::Sgd => u64::from(optimizer.momentum > 0.0),
        // One number per row and column.
        OptimizerKind::Adafactor => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mlx::available::assume_available, training::optimizer::OptimizerState};

    #[test]
    fn counts_the_state_of_every_optimizer() {
        let parameter = mlx_rs::Array::zeros::<f32>(&[500, 300]).unwrap();
        for (kind, momentum) in [
            (OptimizerKind::Adam, 0.0),
            (OptimizerKind::AdamW, 0.0),
            (OptimizerKind::Lion, 0.0),
            (OptimizerKind::Sgd, 0.0),
            (OptimizerKind::Sgd, 0.9),
            (OptimizerKind::Adafactor, 0.0),
        ] {
            let optimizer = Optimizer {
                momentum,
                ..Optimizer::new(kind)
            };
            let state = OptimizerState::new(
                optimizer,
                &["weight".to_owned()],
                std::slice::from_ref(&parameter),
            );
            let kept: usize = state.unwrap().arrays().map(mlx_rs::Array::size).sum();
            let share = kept as f64 / parameter.size() as f64;
            let expected = moments(&optimizer) as f64;
            assert!((share - expected).abs() < 0.01, "{kind:?}: {share}");
        }
    }

    #[test]
    fn refuses_a_state_above_the_available_memory() {
        let options = TrainerOptions {
            ema_decay: Some(0.99),
            ..TrainerOptions::default()
        };
        let _available = assume_available(Some(20_000_000));
        check_fits(1_000_000, &options).unwrap();
        let error = check_fits(1_000_001, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "training 1000001 parameters needs 20.00 MB of memory; 20.00 MB is available"
        );
    }
}
