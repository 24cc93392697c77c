//! Opening any model folder gives a model or a one-line error with the file and the tensor or
//! field. It never panics or aborts inside MLX.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod corrupt;
mod folders;
mod headers;
mod indexes;
mod layouts;
