//! Text to train on, as token ids: rows of JSONL or plain text files.
//!
//! | row | what is learnt |
//! |---|---|
//! | `{"text"}` | the text |
//! | `{"prompt", "completion"}` | the prompt with the completion put directly after it |
//! | `{"messages": [{"role", "content"}, ..]}` | the conversation in the [chat template](crate::chat) |
//! | `{"prompt", "chosen", "rejected"}` | which of two answers to prefer |
//!
//! The first row decides the kind of a file; other keys are ignored, blank lines are skipped. A
//! text file is one document. Every example begins with BOS and ends with EOS; a prompt has the
//! ids that it has at inference, and the completion goes on after them without a space of its
//! own. Text is taken as it is: OpenELM was trained on NFC, which is left to the caller.
//!
//! ```no_run
//! use openelm_core::Tokenizer;
//! use openelm_core::dataset::{DataFolder, Dataset, DatasetOptions};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let tokenizer = Tokenizer::from_file("tokenizer.json")?;
//! let folder = DataFolder::open("tales")?;
//! if let Some(train) = &folder.train {
//!     let dataset = Dataset::read(train, &tokenizer, &DatasetOptions::default())?;
//!     println!("{} tokens to learn", dataset.counts().targets);
//! }
//! # Ok(())
//! # }
//! ```

mod dataset;
mod encode;
mod example;
mod folder;
mod json;
mod options;
mod preference;
mod row;
mod rows;
#[cfg(test)]
mod tests;
mod windows;

pub use dataset::{Dataset, PreferenceDataset};
pub use example::{Example, PreferencePair};
pub use folder::DataFolder;
pub use options::{Counts, DatasetOptions, LongRows};
pub use rows::RowKind;
