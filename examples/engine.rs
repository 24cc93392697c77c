//! Several prompts at the same time, then short texts beside a fine-tuning:
//! `cargo run --release --example engine -- FOLDER`.
#![allow(clippy::print_stdout)] // Examples print their results.

use std::{env, error::Error, time::Instant};

use openelm_core::{
    LoadOptions, Result,
    adapter::AdapterOptions,
    engine::{Engine, EventReceiver, FinetuneRequest},
    finetune::{DataOptions, FinetuneEvent, FinetuneOptions},
    generation::{Event, GenerateOptions},
};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).unwrap_or("examples/tales".into());
    let model = Engine::start()?.load_blocking(folder, LoadOptions::default())?;

    // All requests advance together.
    let options = GenerateOptions {
        max_tokens: 24,
        ..GenerateOptions::default()
    };
    let prompts = ["Once upon a time", "The old king", "In a dark forest"];
    let streams = prompts.map(|prompt| model.generate(prompt, options.clone()));
    for (prompt, events) in prompts.into_iter().zip(streams) {
        println!("{prompt}{}", text(&events?)?);
    }

    // A request waits for the batch in progress, not for the training.
    let rows = env::temp_dir().join(format!("openelm-example-{}", std::process::id()));
    std::fs::create_dir_all(&rows)?;
    let row = format!(
        "{{\"text\": \"{}\"}}\n",
        "A fox ran to the park. ".repeat(21)
    );
    std::fs::write(rows.join("train.jsonl"), row.repeat(64))?;
    let training = model.finetune(FinetuneRequest {
        data: rows.clone(),
        folder: rows.join("run"),
        run: FinetuneOptions {
            iters: 100_000,
            batch_size: 4,
            max_seq_length: 128,
            ..FinetuneOptions::default()
        },
        rows: DataOptions::default(),
        adapter: AdapterOptions::default(),
        seed: 1,
        resume: false,
    })?;
    let options = GenerateOptions {
        max_tokens: 4,
        ..options
    };
    let mut waits = Vec::new();
    while waits.len() < 20 {
        // One event of the training for each text.
        if let Some(FinetuneEvent::Step { .. }) = training.events().next_blocking()? {
            let started = Instant::now();
            text(&model.generate("Once", options.clone())?)?;
            waits.push(started.elapsed());
        }
    }
    training.cancel();
    while training.events().next_blocking()?.is_some() {}
    std::fs::remove_dir_all(&rows)?;
    waits.sort_unstable();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("4 tokens beside a training: {median:.2?} in the median, at most {longest:.2?}");
    Ok(())
}

/// The whole text of a stream.
fn text(events: &EventReceiver<Event>) -> Result<String> {
    let mut text = String::new();
    while let Some(event) = events.next_blocking()? {
        if let Event::Token(token) = event {
            text += &token.text;
        }
    }
    Ok(text)
}
