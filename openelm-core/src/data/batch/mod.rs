//! Batches of examples: their order and arrays.
//!
//! [`BatchPlan`] is the order of training: rows of similar length together, every row once per
//! epoch. [`Batch`] is the input of the model. Functions with `mlx_lm` in their names reproduce
//! `mlx_lm.lora` 0.32.2, including its known defects, for comparisons.

mod batch;
mod mlx_lm;
mod plan;

pub use batch::{Batch, Padding};
pub use mlx_lm::{MlxLmOrder, mlx_lm_batches};
pub use plan::BatchPlan;
