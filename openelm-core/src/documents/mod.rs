//! Readers of text documents in jsonl, txt, gz, zst and parquet files.

pub(crate) mod files;
mod for_each;
pub(crate) mod parquet;
pub(crate) mod parquet_pages;
pub(crate) mod reader;
mod row;

pub use files::FileFormat;
pub(crate) use for_each::for_each_document;
pub(crate) use reader::{DocumentReader, Found};
