//! Text documents out of jsonl, txt, gz, zst and parquet files.

pub(crate) mod files;
pub(crate) mod parquet;
pub(crate) mod reader;

pub(crate) use reader::{DocumentReader, Found, error};
