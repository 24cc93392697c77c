//! Prints the tokens of a text and decodes them: `cargo run --example tokenize -- FOLDER TEXT`.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::{env, path::Path};

use openelm_core::{Result, Tokenizer};

fn main() -> Result<()> {
    let folder = env::args().nth(1).unwrap_or("examples/tales".into());
    let text = env::args()
        .nth(2)
        .unwrap_or("Once upon a time, a dragon ate 3 knights.".into());

    let tokenizer = Tokenizer::find(Path::new(&folder), None)?;
    let ids = tokenizer.encode_prompt(&text)?;
    for &id in &ids {
        println!("{id:>6}  {:?}", tokenizer.piece(id).unwrap_or_default());
    }
    println!("{} tokens: {:?}", ids.len(), tokenizer.decode(&ids)?);
    Ok(())
}
