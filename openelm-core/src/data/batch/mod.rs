//! Batches of examples: their order and arrays.
//!
//! [`BatchPlan`] is the order of training: rows of like length together, every row in every
//! epoch. [`Batch`] is what the model reads. The functions with `mlx_lm` in their name do what
//! `mlx_lm.lora` 0.32.2 does, its known defects among it, for comparisons with it.

mod batch;
mod mlx_lm;
mod plan;

pub use batch::{Batch, Padding};
pub use mlx_lm::{MlxLmOrder, mlx_lm_batches};
pub use plan::BatchPlan;
