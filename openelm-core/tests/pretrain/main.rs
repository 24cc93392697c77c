//! Pre-training of tiny models: document boundaries, micro-batches, averages, resume, 16 bits,
//! checkpoints of CoreNet.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod corenet_checkpoint;
#[path = "../torch_file/opcodes.rs"]
#[expect(dead_code, reason = "shared with the tests of malformed pickles")]
mod opcodes;
mod resume;
mod run;
mod tiny;
mod torch;
mod update;
