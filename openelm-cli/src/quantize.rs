//! `openelm quantize`: learned quantisation, with a report of the differences.

mod picture;
mod table;

use std::path::PathBuf;

use openelm_core::{
    CancelHandle,
    convert::TokenizerChoice,
    quantize::{QuantizeEvent, QuantizeOptions, Widths, quantize},
};

use crate::{
    bar::{bar, style},
    choices::QuantizeMethod,
    convert::{shard_size, size},
    error::Error,
    given::Given,
    hub,
    interrupt::Interrupt,
    output,
    paths::Paths,
};

/// Arguments of `openelm quantize`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    /// Model that is not quantised: a folder or file of any format that `openelm convert` reads, or
    /// a repository of the Hub
    source: PathBuf,

    /// Folder to write
    target: PathBuf,

    /// Calibration text: jsonl, txt, gz, zst or parquet files, folders of them, or data sets of the
    /// Hub
    #[arg(long, required = true, value_name = "FILES", value_parser = Paths::parser(), num_args = 1..)]
    data: Vec<Paths>,

    /// Held-out text of the report [default: the last sequences of --data]
    #[arg(long, value_name = "FILES", value_parser = Paths::parser(), num_args = 1..)]
    valid: Vec<Paths>,

    /// Key of the text in rows and columns
    #[arg(long, value_name = "KEY", default_value_t = QuantizeOptions::default().text_key)]
    text_key: String,

    /// Method: rounding, GPTQ, AWQ, or distilled scales and biases (dwq)
    #[arg(long, value_name = "METHOD", default_value_t = QuantizeOptions::default().method.into())]
    method: QuantizeMethod,

    /// Bits per weight: 2, 3, 4, 5, 6 or 8 [default: 4]
    #[arg(long, value_name = "N", conflicts_with = "target_bits")]
    bits: Option<usize>,

    /// Bits per weight of the whole model, scales included: the width of each matrix is chosen by
    /// its sensitivity
    #[arg(long, value_name = "N")]
    target_bits: Option<f64>,

    /// Group size, the number of weights per scale: 32, 64 or 128
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().group_size)]
    group_size: usize,

    /// Number of calibration sequences, the first ones of --data
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().samples)]
    samples: usize,

    /// Number of held-out sequences
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().valid_samples)]
    valid_samples: usize,

    /// Tokens per sequence [default: 512, or the model's context if that is shorter]
    #[arg(long, value_name = "N")]
    max_seq_length: Option<usize>,

    /// GPTQ: share of the Hessian's mean diagonal that is added to its diagonal
    #[arg(long, value_name = "X", default_value_t = QuantizeOptions::default().damping)]
    damping: f64,

    /// DWQ: the method that makes its start: round, gptq or awq
    #[arg(long, value_name = "METHOD", default_value_t = QuantizeOptions::default().start.into())]
    start: QuantizeMethod,

    /// DWQ: passes over the calibration sequences
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().epochs)]
    epochs: usize,

    /// DWQ: sequences per step
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().batch_size)]
    batch_size: usize,

    /// DWQ: learning rate, as a share of a matrix's mean scale
    #[arg(long, value_name = "X", default_value_t = QuantizeOptions::default().learning_rate)]
    learning_rate: f64,

    /// DWQ: steps between saves of the progress
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().save_every)]
    save_every: usize,

    /// DWQ: seed of the order of the sequences
    #[arg(long, value_name = "N", default_value_t = QuantizeOptions::default().seed)]
    seed: u64,

    /// Tokenizer to include: a tokenizer.json, LLaMA's tokenizer.model, a folder or repository with
    /// one, or auto [default: the source's tokenizer]
    #[arg(long, value_name = "PATH|REPO")]
    tokenizer: Option<PathBuf>,

    /// Maximum size of a weight file, as in 5GB or 500MB
    #[arg(long, value_name = "SIZE", default_value = shard_size(), value_parser = size)]
    max_shard_size: u64,

    /// Replace the model folder at TARGET; other files in the folder stay
    #[arg(long)]
    force: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// No progress bar and no report
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm quantize OpenELM-270M OpenELM-270M-dwq --data stories.jsonl
  openelm quantize OpenELM-270M OpenELM-270M-gptq --data stories.jsonl --method gptq --bits 3
  openelm quantize OpenELM-3B OpenELM-3B-4bpw --data stories.jsonl --target-bits 4

The same command continues an interrupted quantisation.";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let distils = args.method == QuantizeMethod::Dwq;
    let of_dwq = [
        "start",
        "epochs",
        "batch-size",
        "learning-rate",
        "save-every",
        "seed",
    ];
    let is_gptq =
        args.method == QuantizeMethod::Gptq || distils && args.start == QuantizeMethod::Gptq;
    args.given.check(&[
        (!distils, &of_dwq, "without --method dwq"),
        (!is_gptq, &["damping"], "without GPTQ"),
    ])?;
    let quiet = args.quiet;
    args.source = hub::local_source(&args.source, quiet)?;
    let tokenizer = match &args.tokenizer {
        Some(given) => hub::tokenizer(given, &args.source, quiet)?,
        None => None,
    };
    let options = options(&args, tokenizer)?;
    let cancel = CancelHandle::default();
    let interrupt = Interrupt::cancelling(cancel.clone())?;
    let bar = bar(quiet, "{msg} {wide_bar} {pos}/{len}, {eta} left");
    let mut phase = "";
    let report = quantize(&args.source, &args.target, &options, &cancel, |event| {
        let (name, done, total) = position(event);
        if name != phase {
            phase = name;
            bar.set_style(style("{msg} {wide_bar} {pos}/{len}, {eta} left"));
            bar.reset();
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(match event {
            QuantizeEvent::Distilled { loss, .. } => format!("{name} (KL {loss:.4})"),
            _ => name.to_owned(),
        });
    });
    bar.finish_and_clear();
    let report = interrupt.result(report)?;
    picture::draw(&args.target, &report)?;
    let shown = if args.json {
        output::write_json(&serde_json::to_value(&report).unwrap_or_default())
    } else if quiet {
        Ok(())
    } else {
        output::write(table::table(&report).as_bytes())
    };
    shown.map_err(|error| error.unreported(|| format!("{} is complete", args.target.display())))
}

/// Name, position and length of the phase of `event`.
fn position(event: QuantizeEvent) -> (&'static str, u64, u64) {
    match event {
        QuantizeEvent::Sensitivity { done, total } => {
            ("measuring sensitivity", done as u64, total as u64)
        }
        QuantizeEvent::Calibrated { done, total } => ("calibrating", done as u64, total as u64),
        QuantizeEvent::Quantized { done, total } => ("quantising", done as u64, total as u64),
        QuantizeEvent::Distilled { done, total, .. } => ("distilling", done, total),
        QuantizeEvent::Measured { done, total } => ("measuring", done as u64, total as u64),
    }
}

fn options(args: &Args, tokenizer: Option<PathBuf>) -> Result<QuantizeOptions, Error> {
    let data = |given: &[Paths]| -> Result<Vec<PathBuf>, Error> {
        let paths = Paths::all(given).into_iter();
        let local = paths.map(|path| hub::local(&path, &hub::Files::Dataset, args.quiet));
        local.collect()
    };
    Ok(QuantizeOptions {
        method: args.method.into(),
        widths: match args.target_bits {
            Some(bits) => Widths::Target(bits),
            None => args
                .bits
                .map_or(QuantizeOptions::default().widths, Widths::Uniform),
        },
        group_size: args.group_size,
        data: data(&args.data)?,
        valid: data(&args.valid)?,
        text_key: args.text_key.clone(),
        samples: args.samples,
        valid_samples: args.valid_samples,
        max_seq_length: args.max_seq_length,
        damping: args.damping,
        start: args.start.into(),
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        save_every: args.save_every,
        seed: args.seed,
        tokenizer: tokenizer.map_or(TokenizerChoice::OfSource, TokenizerChoice::Path),
        max_shard_bytes: args.max_shard_size,
        force: args.force,
    })
}
