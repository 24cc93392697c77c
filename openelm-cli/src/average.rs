//! `openelm average`: the mean of the weights of several checkpoints.

use std::path::PathBuf;

use openelm_core::{
    convert::{ConvertOptions, Format, TokenizerChoice},
    output::check_inputs,
};

use crate::{
    choices::Dtype,
    convert::{Architecture, architecture, write},
    error::Error,
    hub,
};

/// Arguments of `openelm average`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Checkpoints of one architecture: model folders, CoreNet .pt files, or repositories of the Hub
    #[arg(required = true, num_args = 2.., value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,

    /// Folder to write
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,

    /// Data type of the weights [default: as stored]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Architecture of CoreNet checkpoints: 270M, 450M, 1_1B, 3B, a config.json or CoreNet's .yaml
    /// [default: the released size with the same shapes]
    #[arg(long, value_name = "NAME|FILE", value_parser = architecture)]
    architecture: Option<Architecture>,

    /// Use the moving averages of the weights (EMA) of training checkpoints
    #[arg(long)]
    ema: bool,

    /// Tokenizer to include: a file, a folder or repository with one, or auto [default: that of the
    /// first checkpoint]
    #[arg(long, value_name = "PATH|REPO", conflicts_with = "no_tokenizer")]
    tokenizer: Option<PathBuf>,

    /// Omit the tokenizer
    #[arg(long)]
    no_tokenizer: bool,

    /// Replace the model folder at --output; other files in the folder stay
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
  openelm average run/checkpoints/step-002000 run/checkpoints/step-002500 --output averaged
  openelm average iteration_330000.pt iteration_335000.pt iteration_340000.pt --output averaged \\
    --tokenizer Llama-2-7b-hf";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let places: Result<Vec<_>, _> = args
        .checkpoints
        .iter()
        .map(|place| hub::local_source(place, args.quiet))
        .collect();
    let mut places = places?.into_iter();
    let first = places.next().unwrap_or_default();
    let tokenizer = match &args.tokenizer {
        Some(given) => hub::tokenizer(given, &first, args.quiet)?
            .map_or(TokenizerChoice::OfSource, TokenizerChoice::Path),
        None if args.no_tokenizer => TokenizerChoice::Without,
        None => TokenizerChoice::OfSource,
    };
    let architecture = args.architecture.as_ref();
    let place = architecture.map(|given| ("--architecture", given.place.as_path()));
    check_inputs(&args.output, place)?;
    let options = ConvertOptions {
        format: Format::Mlx,
        dtype: args.dtype.map(Into::into),
        architecture: args.architecture.map(|given| given.config),
        ema: args.ema,
        average_with: places.collect(),
        tokenizer,
        force: args.force,
        ..ConvertOptions::default()
    };
    write(&first, &args.output, &options, args.quiet, args.json)
}
