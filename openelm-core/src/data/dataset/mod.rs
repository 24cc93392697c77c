//! Data sets for fine-tuning as token ids: rows of JSONL or plain text files.
//!
//! | row | trained on |
//! |---|---|
//! | `{"text"}` | the text |
//! | `{"prompt", "completion"}` | the prompt, directly followed by the completion |
//! | `{"messages": [{"role", "content"}, ..]}` | the [rendered](crate::chat) conversation |
//! | `{"prompt", "chosen", "rejected"}` | the preference of one answer over the other |
//!
//! The first row decides the kind of a file; other keys are ignored, blank lines are skipped. A
//! text file is one document. Every example begins with BOS and ends with EOS; a prompt has the
//! same ids as in generation, and the completion follows without an additional space. Text is not
//! normalized, unless [`clean_text`](DatasetOptions::clean_text) repairs it: OpenELM was trained on
//! text that ftfy repaired, which includes NFC.
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
mod truncate;
mod windows;

pub use dataset::{Dataset, PreferenceDataset};
pub use example::{Example, PreferencePair};
pub use folder::DataFolder;
pub use json::{messages as messages_from_json, object as object_from_json};
pub use options::{Counts, DatasetOptions, LongRows};
pub use rows::RowKind;
