//! Samples three tales from one prompt with different seeds, each up to a blank line: `cargo run
//! --example sample -- FOLDER PROMPT`.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::env;

use openelm_core::{
    LanguageModel, LoadOptions, Result,
    generation::{Event, GenerateOptions, Sampling},
};

fn main() -> Result<()> {
    let folder = env::args().nth(1).unwrap_or("examples/tales".into());
    let prompt = env::args().nth(2).unwrap_or("The king said".into());

    let model = LanguageModel::load(folder, &LoadOptions::default())?;
    for seed in 1..=3 {
        let options = GenerateOptions {
            max_tokens: 80,
            sampling: Sampling {
                temperature: 0.8,
                top_p: 0.95,
                repetition_penalty: 1.2,
                seed: Some(seed),
                ..Sampling::default()
            },
            stop: vec!["\n\n".into()],
            ..GenerateOptions::default()
        };
        print!("{seed}: {prompt}");
        for event in model.generate(&prompt, options)? {
            if let Event::Token(token) = event? {
                print!("{}", token.text);
            }
        }
        println!("\n");
    }
    Ok(())
}
