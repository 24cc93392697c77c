//! Dtypes, evaluations and memory of the GPU's code, run on MLX's CPU backend.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod dtypes;
mod evaluations;
mod load;
mod tales_in;
