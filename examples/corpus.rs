//! Reads files as a pre-training corpus, and prints counts and speed: `cargo run --release
//! --example corpus -- TOKENIZER FILE...`
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::{env, path::Path, time::Instant};

use openelm_core::{
    Result, Tokenizer,
    corpus::{Corpus, CorpusOptions},
};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let tokenizer = arguments.next().unwrap_or("examples/tales".into());
    let options = CorpusOptions {
        files: arguments.map(Into::into).collect(),
        sequence_length: 256,
        ..CorpusOptions::default()
    };

    let tokenizer = Tokenizer::find(Path::new(&tokenizer), None)?;
    let started = Instant::now();
    let found = Corpus::count(options, tokenizer)?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} documents in {} fragments, of which {} have too few characters and {} too few tokens",
        found.documents, found.fragments, found.dropped_by_characters, found.dropped_by_tokens
    );
    println!("{} tokens in {} sequences", found.tokens, found.sequences);
    println!("{:.0} tokens/s", found.tokens as f64 / seconds);
    Ok(())
}
