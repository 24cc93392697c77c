//! Models, adapters, tokenizers and data sets by name, from the Hugging Face Hub.
//!
//! A command gives a path that may be the name of a repository (`owner/name` or
//! `owner/name@revision`) to [`local`] and gets the path of a folder with the files it needs. An
//! existing path is returned unchanged. Otherwise the files are downloaded into the cache of
//! `huggingface_hub`, in its layout (`cache.rs`), so that Python and this tool share them.
//!
//! The client is written here, over `ureq` and rustls, because the crate `hf-hub` 1.0 starts broken
//! downloads again from 0, does not compare files with their hashes, does not read
//! `HF_HUB_OFFLINE`, and brings an asynchronous runtime. Here a download continues after any
//! interruption, and a file gets its name in the cache only after its hash is right.
//!
//! The core takes paths only: nothing in it uses the network.

mod address;
mod cache;
mod certificates;
mod checksum;
mod client;
mod download;
mod environment;
mod fetch;
mod file_name;
mod files;
mod listing;
mod local_file;
mod progress;
mod proxy;
mod repository;
mod status;
mod task_data;
mod token;
mod tokenizers;
mod upload;
mod verify;

pub(crate) use cache::Cache;
pub(crate) use environment::Environment;
pub(crate) use fetch::{Hub, local, local_all, local_source};
pub(crate) use files::Files;
pub(crate) use listing::{CachedRepository, list};
pub(crate) use repository::{RepoType, Repository, name_of_snapshot};
pub(crate) use task_data::task_data;
pub(crate) use tokenizers::{advice, tokenizer};
pub(crate) use upload::Upload;
pub(crate) use verify::damaged;
