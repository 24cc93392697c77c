//! OpenELM in GGUF files: settings, tensors and tokenizer by llama.cpp's names.

mod config;
mod scaling;
mod tensors;
mod tokenizer_json;
mod vocabulary;

pub use config::{config_from_gguf, metadata, name_from_gguf};
pub(crate) use tensors::stored_type;
pub use tensors::{PlannedTensor, check_tensors, read_tensor, tensor_plan};
pub use vocabulary::{Token, TokenKind, Vocabulary};
