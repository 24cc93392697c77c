//! Tokenizers: `tokenizer.json` and SentencePiece files, detokenizing, chat templates, BPE training.

pub(crate) mod chat_template;
mod continuation;
pub(crate) mod detokenizer;
mod find;
pub(crate) mod json;
mod library;
#[cfg(test)]
mod library_tests;
#[cfg(test)]
mod llama_tests;
mod long_text;
mod merge;
mod message;
mod model_template;
mod prompt_parts;
mod read;
mod sections;
pub(crate) mod sentencepiece;
mod spec;
mod special_tokens;
mod token_bytes;
mod token_output;
pub(crate) mod tokenizer;
pub(crate) mod train;

pub use chat_template::{ChatTemplate, conversation_prompt, instruct_prompt};
pub use detokenizer::Detokenizer;
pub use find::TOKENIZER_FILES;
pub(crate) use message::check_roles;
pub use message::{Message, Role};
pub(crate) use prompt_parts::PromptParts;
pub(crate) use read::is_json;
pub(crate) use spec::TokenizerSpec;
pub(crate) use token_output::TokenOutput;
pub use tokenizer::Tokenizer;
pub use train::{TokenizerReport, TokenizerTraining};
