//! Runs the network directly and prints the most likely next tokens from its logits: `cargo run
//! --example logits -- FOLDER PROMPT`.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::env;

use openelm_core::{
    LanguageModel, LoadOptions, Result,
    generation::{Event, GenerateOptions},
};

fn main() -> Result<()> {
    let folder = env::args().nth(1).unwrap_or("examples/tales".into());
    let prompt = env::args()
        .nth(2)
        .unwrap_or("The wolf said to the little".into());

    let model = LanguageModel::load(folder, &LoadOptions::default())?;
    let options = GenerateOptions {
        max_tokens: 1,
        logprobs: 8,
        ..GenerateOptions::default()
    };
    for event in model.generate(&prompt, options)? {
        let Event::Token(token) = event? else {
            continue;
        };
        println!("{prompt} ...");
        for top in token.top_logprobs {
            let piece = model.tokenizer().piece(top.id).unwrap_or_default();
            println!("{:>7.2} %  {piece:?}", 100.0 * top.logprob.exp());
        }
    }
    Ok(())
}
