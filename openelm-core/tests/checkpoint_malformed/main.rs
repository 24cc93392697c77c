//! Whatever lies in a model folder, opening it ends in a model or in one line that names the file
//! and the tensor or field; never in a panic, nor in an abort inside MLX.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod corrupt;
mod folders;
mod headers;
mod indexes;
mod layouts;
