//! Tokenizers: `tokenizer.json` and SentencePiece files, detokenizing, chat templates, BPE training.

pub(crate) mod chat_template;
mod continuation;
pub(crate) mod detokenizer;
mod find;
pub(crate) mod json;
#[cfg(test)]
mod llama_tests;
mod long_text;
mod merge;
mod message;
mod sections;
pub(crate) mod sentencepiece;
mod spec;
pub(crate) mod tokenizer;
pub(crate) mod train;

pub use chat_template::{ChatTemplate, conversation_prompt, instruct_prompt};
pub use detokenizer::Detokenizer;
pub(crate) use find::TOKENIZER_FILES;
pub(crate) use message::check_roles;
pub use message::{Message, Role};
pub(crate) use spec::TokenizerSpec;
pub use tokenizer::Tokenizer;
pub(crate) use tokenizer::is_json;
pub use train::{TokenizerReport, TokenizerTraining};
