//! Streams the continuation of a prompt: `cargo run --example generate -- FOLDER PROMPT`.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::{env, io::Write};

use openelm_core::{
    LanguageModel, LoadOptions, Result,
    generation::{Event, GenerateOptions},
};

fn main() -> Result<()> {
    let folder = env::args().nth(1).unwrap_or("examples/tales".into());
    let prompt = env::args().nth(2).unwrap_or("Once upon a time".into());

    let model = LanguageModel::load(folder, &LoadOptions::default())?;
    print!("{prompt}");
    for event in model.generate(&prompt, GenerateOptions::default())? {
        match event? {
            Event::Token(token) => {
                print!("{}", token.text);
                let _ = std::io::stdout().flush();
            }
            Event::Finished { reason, stats } => println!(
                "\n[{}: {} tokens, {:.0} tokens/s]",
                reason.as_str(),
                stats.generated_tokens,
                stats.decode_tokens_per_second()
            ),
            Event::Prefill { .. } => {}
        }
    }
    Ok(())
}
