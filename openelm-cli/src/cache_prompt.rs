//! `openelm cache-prompt`: reads a prompt and writes its keys and values to a file.

use std::path::PathBuf;

use openelm_core::{
    generation::{Event, GenerateOptions, KvCacheOptions},
    output::check_inputs,
};

use crate::{
    adapters::AdapterArgs, bar::bar, error::Error, given::Given, interrupt::Interrupt,
    kv_cache::KvCacheArgs, model::ModelArgs, output, prompt_source::PromptSource,
};

/// Arguments of `openelm cache-prompt`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    #[command(flatten)]
    prompt: PromptSource,

    /// File to write, in mlx-lm's format; mlx-lm needs the ending .safetensors
    #[arg(long, value_name = "FILE")]
    prompt_cache_file: PathBuf,

    #[command(flatten)]
    kv_cache: KvCacheArgs,

    /// Prompt tokens per prefill step [default: 128 on a CPU, 512 on a GPU]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<usize>,

    /// No progress bar and no statistics
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Example:
  openelm cache-prompt --model OpenELM-270M --prompt-file story.txt --prompt-cache-file story.safetensors
  openelm generate --model OpenELM-270M --prompt-cache-file story.safetensors --prompt 'In the end'";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    args.kv_cache.check(&args.given, false)?;
    let name = args.model.model.to_string_lossy().into_owned();
    args.model.fetch(args.quiet)?;
    args.adapters.fetch(args.quiet)?;
    let file = &*args.prompt_cache_file;
    let prompt_file = args.prompt.file();
    let inputs = [("--model", &*args.model.model)].into_iter();
    check_inputs(
        file,
        inputs
            .chain(args.adapters.inputs())
            .chain(prompt_file.map(|path| ("--prompt-file", path))),
    )?;
    let prompt = args.prompt.read()?;
    let mut model = args.model.load(args.quiet)?;
    args.adapters.add_to(&mut model)?;
    let context = model.model().config().max_context_length();
    args.kv_cache
        .check_start(KvCacheOptions::default(), context)?;
    let options = GenerateOptions {
        max_tokens: 0,
        prefill_chunk: args.prefill_chunk,
        kv_cache: args.kv_cache.over(KvCacheOptions::default()),
        ..GenerateOptions::default()
    };
    let mut generation = model.generate(&prompt, options)?;
    let interrupt = Interrupt::cancelling(generation.cancel_handle())?;
    let bar = bar(args.quiet, "reading {wide_bar} {pos}/{len} tokens");
    for event in generation.by_ref() {
        if let Event::Prefill {
            processed, total, ..
        } = event?
        {
            bar.set_length(total as u64);
            bar.set_position(processed as u64);
        }
    }
    bar.finish_and_clear();
    interrupt.check()?;
    let cache = generation.into_cache();
    cache.save(file, model.model(), &name)?;
    if !args.quiet {
        let written = file.metadata().map_err(|problem| Error::Prompt {
            place: file.display().to_string(),
            problem: problem.to_string(),
        })?;
        let (tokens, size) = (cache.offset(), output::bytes(written.len()));
        output::note(&format!("[saved] prompt: {tokens} tokens; file: {size}"));
    }
    Ok(())
}
