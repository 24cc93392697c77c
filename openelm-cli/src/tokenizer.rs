//! `openelm tokenizer`: trains tokenizers.

use std::path::PathBuf;

use clap::Subcommand;
use openelm_core::tokenizer::TokenizerTraining;

use crate::{
    error::Error,
    hub::{self, Files},
    output,
};

/// Arguments of `openelm tokenizer`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a LLaMA-style tokenizer: BPE with byte fallback
    #[command(after_help = TRAIN_EXAMPLE)]
    Train(TrainArgs),
}

const TRAIN_EXAMPLE: &str = "Example:
  openelm tokenizer train --data tales.jsonl --vocab-size 4096 --output tales-model

Writes tokenizer.json and tokenizer_config.json. <unk> is 0, <s> 1, </s> 2.";

#[derive(clap::Args)]
struct TrainArgs {
    /// Files, folders or glob patterns: .jsonl, .json, .txt (also .gz and .zst), .parquet; or
    /// data sets of the Hub
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    data: Vec<PathBuf>,

    /// Vocabulary size, including 3 special tokens and 256 bytes
    #[arg(long, value_name = "N", default_value_t = TokenizerTraining::default().vocab_size)]
    vocab_size: usize,

    /// Key of the text in the rows
    #[arg(long, value_name = "KEY", default_value_t = TokenizerTraining::default().text_key)]
    text_key: String,

    /// Fraction of the characters to include in the vocabulary; rarer ones become bytes
    #[arg(long, value_name = "PART",
          default_value_t = TokenizerTraining::default().character_coverage)]
    character_coverage: f64,

    /// Folder to write; it is created
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,

    /// Replace the tokenizer files in the folder
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let Command::Train(args) = args.command;
    let data = hub::local_all(args.data, &Files::Dataset, false)?;
    let training = TokenizerTraining {
        vocab_size: args.vocab_size,
        text_key: args.text_key,
        character_coverage: args.character_coverage,
        force: args.force,
    };
    let report = training.train(&data, &args.output)?;
    output::note(&format!(
        "{} pieces ({} characters) from {} documents, {} characters, {} different words: {}",
        output::grouped(report.vocab_size as u64),
        output::grouped(report.alphabet as u64),
        output::grouped(report.documents),
        output::grouped(report.characters),
        output::grouped(report.words as u64),
        args.output.join("tokenizer.json").display(),
    ));
    Ok(())
}
