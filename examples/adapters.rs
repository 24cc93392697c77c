//! Two adapters on one loaded model: switching, mixing and removing them without reloading the
//! model.
//!
//! ```sh
//! cargo run --release --example adapters -- MODEL ADAPTER ADAPTER
//! ```
//!
//! Without adapter arguments it creates two new ones, which do not change the text.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use std::time::Instant;

use openelm_core::{
    LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
    generation::GenerateOptions,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "examples/tales".into());
    let mut model = LanguageModel::load(folder, &LoadOptions::default())?;
    for (name, seed) in [("one", 1), ("two", 2)] {
        let adapter = match arguments.next() {
            Some(folder) => Adapter::load(folder)?,
            None => {
                let options = LoraOptions::default();
                Adapter::lora(model.model(), &TargetModules::default(), &options, seed)?
            }
        };
        model.model_mut().add_adapter(name, &adapter)?;
    }

    let mixes: [&[(&str, f32)]; 4] = [
        &[("one", 1.0)],
        &[("two", 1.0)],
        &[("one", 0.5), ("two", 0.5)],
        &[],
    ];
    for mix in mixes {
        let started = Instant::now();
        model.model_mut().set_adapters(mix)?;
        let took = started.elapsed();
        let options = GenerateOptions {
            max_tokens: 12,
            ..GenerateOptions::default()
        };
        let mut text = String::new();
        for event in model.generate("Once upon a time", options)? {
            if let openelm_core::generation::Event::Token(token) = event? {
                text.push_str(&token.text);
            }
        }
        println!("{mix:?} in {took:.1?}:{text}");
    }
    Ok(())
}
