//! The corpus as a whole, on files made here, with the bundled tokenizer.

mod errors;
mod files;
mod sequences;
mod state;
