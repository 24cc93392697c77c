//! `openelm bench`: load time, prefill and decode speed, first token, peak memory.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use openelm_core::{
    CancelHandle, Config, Device, Model,
    config::Preset,
    generation::{Event, GenerateOptions, Generation, LoadOptions, Stats, advance, compute_dtype},
    internal::{Weights, random_weights},
    memory,
    weights::{Checkpoint, model_folder},
};
use serde_json::json;

use crate::{
    choices::Dtype,
    error::Error,
    hub::{self, Files},
    interrupt::Interrupt,
    output,
};

/// Arguments of `openelm bench`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Model: a folder or a repository; no tokenizer is needed
    #[arg(
        long,
        short,
        value_name = "PATH|REPO",
        required_unless_present = "preset"
    )]
    model: Option<PathBuf>,

    /// Preset to measure with random weights: 270M, 450M, 1_1B or 3B
    #[arg(long, value_name = "SIZE", conflicts_with = "model")]
    preset: Option<Preset>,

    /// Data type of the computation [default: float32 on a CPU, 16 bits on a GPU]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Keep a quantised model's matrices packed [default: packed on a GPU and on Linux with AVX2]
    #[arg(long)]
    keep_quantized: bool,

    /// Prompt lengths, in tokens [default: 128,512, or shorter to fit the model's context]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    prompt_tokens: Option<Vec<usize>>,

    /// Tokens to generate after each prompt
    #[arg(long, short = 'n', default_value_t = 64, value_name = "N")]
    max_tokens: usize,

    /// Sequences that are generated at the same time; speeds are of all together
    #[arg(long, short, default_value_t = 1, value_name = "N")]
    batch_size: usize,

    /// Draft up to N tokens from an earlier occurrence of the last tokens; 0 is off
    #[arg(
        long,
        visible_alias = "prompt-lookup-num-tokens",
        default_value_t = GenerateOptions::default().prompt_lookup,
        value_name = "N"
    )]
    prompt_lookup: usize,

    /// Runs per prompt length; medians are reported
    #[arg(long, short, default_value_t = 3, value_name = "N")]
    repeat: usize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  openelm bench --model OpenELM-270M
  openelm bench --preset 270M --prompt-tokens 100,2000 -n 20 --json";

/// Default prompt lengths.
const PROMPT_TOKENS: [usize; 2] = [128, 512];

/// Largest batch: each sequence has its own keys and values.
const MOST_SEQUENCES: usize = 1024;

/// Medians for one prompt length.
struct Row {
    prompt_tokens: usize,
    prefill: f64,
    decode: f64,
    first_token: Duration,
    /// Of the last run.
    drafted_tokens: usize,
    accepted_tokens: usize,
}

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    if let Some(model) = &mut args.model {
        *model = hub::local(model, &Files::Model, args.json)?;
    }
    check(&args)?;
    let started = Instant::now();
    let model = load(&args)?;
    let load = started.elapsed();
    let context = model.config().max_context_length();
    let lengths = match &args.prompt_tokens {
        Some(lengths) => lengths.clone(),
        None => fitting(context, args.max_tokens)?,
    };
    let interrupt = Interrupt::cancelling(CancelHandle::default())?;
    let mut rows = Vec::new();
    for prompt_tokens in lengths {
        rows.push(measure(&model, prompt_tokens, &args, &interrupt)?);
    }
    let peak = memory::peak_resident_bytes()?;
    let device = Device::current()?;

    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "prompt_tokens": row.prompt_tokens,
                    "prefill_tokens_per_second": row.prefill,
                    "decode_tokens_per_second": row.decode,
                    "first_token_seconds": row.first_token.as_secs_f64(),
                    "drafted_tokens": row.drafted_tokens,
                    "accepted_tokens": row.accepted_tokens,
                })
            })
            .collect();
        let shown = output::write_json(&json!({
            "parameters": model.config().parameter_count(),
            "dtype": model.dtype().to_string(),
            "device": device.to_string(),
            "load_seconds": load.as_secs_f64(),
            "batch_size": args.batch_size,
            "generated_tokens": args.max_tokens,
            "peak_memory_bytes": peak,
            "active_bytes": memory::active_bytes()?,
            "peak_bytes": memory::peak_bytes()?,
            "cache_bytes": memory::cache_bytes()?,
            "runs": rows,
        }));
        return shown.map_err(unreported);
    }
    let mut text = format!(
        "{} parameters in {} on the {device}; loaded in {:.2} s; peak memory {}\n\n\
         prompt tokens  prefill tokens/s  decode tokens/s  first token ms\n",
        output::grouped(model.config().parameter_count()),
        model.dtype(),
        load.as_secs_f64(),
        output::bytes(peak),
    );
    for row in &rows {
        text += &format!(
            "{:>13}{:>18.1}{:>17.1}{:>16.0}\n",
            row.prompt_tokens,
            row.prefill,
            row.decode,
            row.first_token.as_secs_f64() * 1e3,
        );
    }
    output::write(text.as_bytes()).map_err(unreported)
}

/// A closed pipe is a failure: without its report, a benchmark has no result.
fn unreported(error: Error) -> Error {
    error.unreported(|| "the measurements are lost".into())
}

/// Checks the options before weights are read or generated.
fn check(args: &Args) -> Result<(), Error> {
    let config = match args.preset {
        Some(preset) => preset.config(),
        None => Config::load(model_folder(args.model.clone().unwrap_or_default())?)?,
    };
    let longest = config.max_context_length().saturating_sub(1);
    let problem = if args.repeat == 0 {
        "--repeat: expected at least 1, found 0".to_owned()
    } else if !(1..=MOST_SEQUENCES).contains(&args.batch_size) {
        format!(
            "--batch-size: expected 1 to {MOST_SEQUENCES}, found {}",
            args.batch_size
        )
    } else if args.max_tokens < 2 {
        format!(
            "--max-tokens: expected at least 2, found {}",
            args.max_tokens
        )
    } else if let Some(tokens) = args
        .prompt_tokens
        .iter()
        .flatten()
        .find(|n| !(1..=longest).contains(*n))
    {
        format!(
            "--prompt-tokens: expected 1 to {longest}, below the model's context length, found \
             {tokens}"
        )
    } else if args.keep_quantized && matches!(config.quantization_map(), Ok(None)) {
        "--keep-quantized: no effect on a model that is not quantised".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Usage(problem))
}

/// The default prompt lengths, shortened so that `max_tokens` more fit the `context`.
fn fitting(context: usize, max_tokens: usize) -> Result<Vec<usize>, Error> {
    let most = context.saturating_sub(max_tokens);
    if most == 0 {
        return Err(Error::Usage(format!(
            "--max-tokens: expected less than the model's context of {context} tokens, found \
             {max_tokens}"
        )));
    }
    let mut lengths = PROMPT_TOKENS.map(|length| length.min(most)).to_vec();
    lengths.dedup();
    if lengths != PROMPT_TOKENS {
        let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
        output::note(&format!(
            "prompts of {} tokens, which fit the model's context of {context} with {max_tokens} \
             generated tokens",
            lengths.join(" and "),
        ));
    }
    Ok(lengths)
}

fn load(args: &Args) -> Result<Model, Error> {
    let dtype = args.dtype.map(Into::into);
    if let Some(preset) = args.preset {
        let config = preset.config();
        let dtype = compute_dtype(dtype, openelm_core::Dtype::Bfloat16, &config)?;
        let weights = random_weights(&config, dtype, 0)?;
        return Ok(Model::new(config, weights, dtype)?);
    }
    let folder = model_folder(args.model.clone().unwrap_or_default())?;
    let config = Config::load(&folder)?;
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.check(&config)?;
    let options = LoadOptions {
        dtype,
        keep_quantized: args.keep_quantized.then_some(true),
        ..LoadOptions::default()
    };
    let options = options.read_options(checkpoint.dtype(), &config)?;
    let weights = Weights::read(&checkpoint, &config, options, &mut |_, _| {})?;
    Ok(Model::new(config, weights, options.dtype)?)
}

fn measure(
    model: &Model,
    prompt_tokens: usize,
    args: &Args,
    interrupt: &Interrupt,
) -> Result<Row, Error> {
    let vocab = model.config().vocab_size() as u32;
    // Arbitrary tokens, spread over the vocabulary and identical in every run.
    let prompt: Vec<u32> = (0..prompt_tokens as u32)
        .map(|i| i.wrapping_mul(7919) % vocab)
        .collect();
    let mut runs = Vec::new();
    // The first run is a warm-up and is not counted.
    for run in 0..=args.repeat {
        let stats = generate(model, &prompt, args, interrupt)?;
        if run > 0 {
            runs.push(stats);
        }
        interrupt.check()?;
    }
    let median = |value: fn(&Stats) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Ok(Row {
        prompt_tokens,
        prefill: median(Stats::prefill_tokens_per_second),
        decode: median(Stats::decode_tokens_per_second),
        drafted_tokens: runs.last().map_or(0, |stats| stats.drafted_tokens),
        accepted_tokens: runs.last().map_or(0, |stats| stats.accepted_tokens),
        first_token: Duration::from_secs_f64(median(|stats| stats.prefill.as_secs_f64())),
    })
}

/// Generates all sequences; the statistics are of all together.
fn generate(
    model: &Model,
    prompt: &[u32],
    args: &Args,
    interrupt: &Interrupt,
) -> Result<Stats, Error> {
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        ignore_eos: true,
        prompt_lookup: args.prompt_lookup,
        ..GenerateOptions::default()
    };
    let cancel = CancelHandle::default();
    interrupt.cancels(cancel.clone());
    let new = || Generation::new(model, None, prompt.to_vec(), options.clone());
    let mut generations = std::iter::repeat_with(new)
        .take(args.batch_size)
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = Stats::default();
    while !generations.iter().all(Generation::has_ended) {
        if cancel.is_cancelled() {
            break;
        }
        advance(&mut generations.iter_mut().collect::<Vec<_>>());
        for generation in &mut generations {
            while let Some(event) = generation.ready_event() {
                if let Event::Finished { stats, .. } = event? {
                    all.prompt_tokens += stats.prompt_tokens;
                    // The rate does not count the first token of each sequence.
                    all.generated_tokens += stats.generated_tokens.saturating_sub(1);
                    all.drafted_tokens += stats.drafted_tokens;
                    all.accepted_tokens += stats.accepted_tokens;
                    all.prefill = all.prefill.max(stats.prefill);
                    all.decode = all.decode.max(stats.decode);
                }
            }
        }
    }
    all.generated_tokens += 1;
    Ok(all)
}
