//! `openelm generate`: streams generated text.

mod batch;
mod draft;
mod events;
pub(crate) mod prompt;
mod rows;
mod text_options;
mod written;

use std::path::PathBuf;

use openelm_core::{
    constraint::AtLimit,
    generation::{EosToken, Event, GenerateOptions, Generation, KvCacheOptions, PromptCache},
};

use crate::{
    adapters::AdapterArgs,
    choices::LogprobsOfChoice,
    constraint::{AtLimitChoice, ConstraintArgs},
    error::Error,
    given::Given,
    interrupt::Interrupt,
    kv_cache::KvCacheArgs,
    model::ModelArgs,
    output,
    prompt_source::PromptSource,
    sampling::SamplingArgs,
};
use batch::Batch;
use draft::DraftArgs;
use events::{print_stats, print_text, to_json};
use prompt::PromptKind;
use rows::Rows;
use text_options::TextOptions;

/// Arguments of `openelm generate`.
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

    /// File of JSON lines with a `prompt` or `messages` each; a JSON line with the `text` is written
    /// for each
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["prompt", "prompt_file", "prompt_cache_file", "json", "logprobs", "logprobs_of", "prompt_logprobs"]
    )]
    prompts: Option<PathBuf>,

    /// With --prompts, number of texts that are generated at the same time
    #[arg(long, short, default_value_t = batch::DEFAULT_SIZE, value_name = "N")]
    batch_size: usize,

    /// With --prompts, file of the texts; the same command continues it after a stop [default:
    /// standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    prompt_kind: PromptKind,

    /// Maximum number of tokens to generate
    #[arg(long, short = 'n', default_value_t = GenerateOptions::default().max_tokens, value_name = "N")]
    max_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// Stop before this string; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    #[command(flatten)]
    constraint: ConstraintArgs,

    /// End of a structured text that reaches --max-tokens: stop there, an error, or close what is
    /// open [default: stop]
    #[arg(long, value_name = "END", value_enum, requires = "ConstraintArgs")]
    at_limit: Option<AtLimitChoice>,

    /// Continue after the end-of-sequence token
    #[arg(long)]
    ignore_eos: bool,

    /// Token that ends the text as the end-of-sequence token does, by its id or piece; may be
    /// repeated
    #[arg(long, value_name = "TOKEN", conflicts_with = "ignore_eos")]
    extra_eos_token: Vec<EosToken>,

    /// Draft up to N tokens from an earlier occurrence of the last tokens, and verify them in one
    /// pass: the same text, faster where it repeats; 0 is off
    #[arg(
        long,
        visible_alias = "prompt-lookup-num-tokens",
        default_value_t = GenerateOptions::default().prompt_lookup,
        value_name = "N",
        conflicts_with = "draft_model"
    )]
    prompt_lookup: usize,

    #[command(flatten)]
    draft: DraftArgs,

    /// Prompt tokens per prefill step [default: 128 on a CPU, 512 on a GPU]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<usize>,

    /// Continue the prompt in this file of cache-prompt or mlx-lm; --prompt is the text after it
    #[arg(long, value_name = "FILE")]
    prompt_cache_file: Option<PathBuf>,

    #[command(flatten)]
    kv_cache: KvCacheArgs,

    /// Print each event as a JSON object on one line
    #[arg(long)]
    json: bool,

    /// With --json, add the N most likely tokens and their log-probabilities
    #[arg(long, default_value_t = GenerateOptions::default().logprobs, value_name = "N", requires = "json")]
    logprobs: usize,

    /// With --json, add the log-probability of each prompt token but the first, and --logprobs most
    /// likely tokens at its place
    #[arg(long, requires = "json")]
    prompt_logprobs: bool,

    /// Distribution of the log-probabilities: the model's, or the sampler's after all options
    #[arg(long, default_value_t = GenerateOptions::default().logprobs_of.into(), value_name = "WHICH", requires = "logprobs")]
    logprobs_of: LogprobsOfChoice,

    /// No progress bar and no statistics
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm generate --model OpenELM-270M --prompt 'Once upon a time'
  openelm generate --model OpenELM-270M --tokenizer Llama-2-7b-hf --prompt 'Hello' --temp 0.8 --top-p 0.95
  openelm generate --model OpenELM-270M --prompt-file story.txt -n 500 --repetition-penalty 1.2
  openelm generate --model OpenELM-270M-Instruct --chat --prompt 'Who are you?'
  openelm generate --model OpenELM-270M --prompts prompts.jsonl --output texts.jsonl
  openelm generate --model OpenELM-270M --prompt 'A fox in JSON: ' --json-schema fox.json
  echo 'Once upon a time' | openelm generate --model OpenELM-270M --json --logprobs 5";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    // Checked before the model loads, so that invalid options fail at once.
    let sampling = args.sampling.sampling(&args.given)?;
    let drawn = args.sampling.draws();
    let at_limit = args.at_limit.map(AtLimit::from).unwrap_or_default();
    let constraint = args.constraint.read()?;
    if args.ignore_eos
        && let Some(kind) = &constraint
    {
        let option = kind.option().replace('_', "-");
        let problem = format!("not with --{option}: the text ends where it is complete");
        return Err(args.given.refusal("ignore-eos", &problem));
    }
    args.prompt_kind.check(&args.given)?;
    // clap's `requires` has no effect if an option that conflicts with the required one is given.
    let alone = "without --prompts";
    args.given.check(&[
        (args.prompts.is_none(), &["batch-size", "output"], alone),
        (
            !args.given.has("draft-model"),
            &["num-draft-tokens"],
            "without --draft-model",
        ),
    ])?;
    batch::check_size(args.batch_size)?;
    args.kv_cache
        .check(&args.given, args.prompt_cache_file.is_some())?;
    args.model.fetch(args.quiet)?;
    args.adapters.fetch(args.quiet)?;
    args.draft.fetch(args.quiet)?;
    let mut options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling,
        stop: args.stop,
        logprobs: args.logprobs,
        logprobs_of: args.logprobs_of.into(),
        prompt_logprobs: args.prompt_logprobs,
        prefill_chunk: args.prefill_chunk,
        ignore_eos: args.ignore_eos,
        extra_eos_tokens: args.extra_eos_token,
        constraint,
        at_limit,
        prompt_lookup: args.prompt_lookup,
        kv_cache: args.kv_cache.over(KvCacheOptions::default()),
    };
    if let Some(file) = args.prompts {
        let rows = Rows::read(file)?;
        args.prompt_kind.check_rows(&args.given, rows.as_slice())?;
        let recorded = TextOptions::new(&args.model, &args.adapters, &args.prompt_kind, &options);
        let done = rows.written(args.output.as_deref(), &recorded)?;
        if done == rows.len() {
            if !args.quiet {
                output::note(&format!("[all {done} texts are in the output]"));
            }
            return Ok(());
        }
        let mut model = args.model.load(args.quiet)?;
        args.adapters.add_to(&mut model)?;
        let context = model.model().config().max_context_length();
        args.kv_cache
            .check_start(KvCacheOptions::default(), context)?;
        let batch = Batch {
            template: args.prompt_kind.template(&args.model.model)?,
            draft: args.draft.load(&args.model, &model, args.quiet)?,
            model: &model,
            rows: &rows,
            options,
            kind: args.prompt_kind,
            recorded: recorded.with_model(&model)?,
            size: args.batch_size,
            quiet: args.quiet,
        };
        return batch.run(args.output.as_deref());
    }
    let prompt = args.prompt.read()?;

    let mut model = args.model.load(args.quiet)?;
    args.adapters.add_to(&mut model)?;
    let draft = args.draft.load(&args.model, &model, args.quiet)?;
    let speculates = options.prompt_lookup > 0 || draft.is_some();
    let cache = args.prompt_cache_file.as_deref();
    let cache = cache.map(|file| PromptCache::load(file, model.model()));
    let cache = cache.transpose()?;
    let kind = cache.as_ref().map(PromptCache::options).unwrap_or_default();
    let context = model.model().config().max_context_length();
    args.kv_cache.check_start(kind, context)?;
    options.kv_cache = args.kv_cache.over(kind);
    let mut generation = match cache {
        Some(cache) => {
            let tokens = args.prompt_kind.encode_after(&model, &prompt)?;
            let tokenizer = Some(model.tokenizer());
            Generation::continuing(model.model(), tokenizer, &tokens, options, cache)?
        }
        None => {
            let template = args.prompt_kind.template(&args.model.model)?;
            let tokens = args.prompt_kind.encode(&model, template, &prompt)?;
            Generation::new(model.model(), Some(model.tokenizer()), tokens, options)?
        }
    };
    if let Some(draft) = &draft {
        generation = generation.with_draft(draft)?;
    }
    let interrupt = Interrupt::cancelling(generation.cancel_handle())?;
    for event in generation {
        let event = event?;
        if args.json {
            output::write_json(&to_json(&event, model.tokenizer())?)?;
        } else {
            print_text(&event)?;
        }
        if let Event::Finished { reason, stats } = event
            && !args.quiet
        {
            print_stats(reason, &stats, drawn, speculates)?;
        }
    }
    interrupt.check()
}
