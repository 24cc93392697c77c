//! Reads a SentencePiece `tokenizer.model`.
//!
//! The file is a protobuf message (`sentencepiece_model.proto`, `ModelProto`): 1 = a piece
//! (1 text, 2 score, 3 type), repeated in the order of the ids; 2 = the trainer's settings; 3 =
//! the normalizer's settings. Only models like LLaMA's are supported: BPE with byte fallback over
//! text that is not normalized.
//!
//! SentencePiece merges any two neighbours whose concatenation is a piece, highest score first.
//! The reader lists these pairs as merges by descending score, then by the ids of the left and the
//! right part, the order of LLaMA's `tokenizer.json`.

pub(crate) mod model;
mod protobuf;
mod settings;
