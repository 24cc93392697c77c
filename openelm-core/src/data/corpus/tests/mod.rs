//! Tests of the whole corpus on generated files, with the bundled tokenizer.

mod errors;
mod files;
mod mixtures;
mod sequences;
mod state;
