//! Test support of the workspace: temporary files, fixtures, random cases, the tool as a process,
//! waiting for futures.
//!
//! Only a development dependency. It does not depend on `openelm-core`, whose unit tests use it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod block_on;
mod command;
mod fixtures;
mod random;
mod temp;

pub use block_on::block_on;
pub use command::{
    Outcome, assert_one_line, command, fails, failure, run, success, wait_for, works,
};
pub use fixtures::{
    encodings, external_data, gzip, repository, tales, utf16, write_tales, write_weights,
    write_zeros, zip,
};
pub use random::{Random, random_text};
pub use temp::{TempDir, TempFile};
