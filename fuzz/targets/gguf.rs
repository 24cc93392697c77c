#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/readers.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod readers;

fuzz_target!(|bytes: &[u8]| readers::gguf(bytes));
