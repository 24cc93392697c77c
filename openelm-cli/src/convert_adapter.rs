//! `openelm convert-adapter`: an adapter of any format to mlx-lm's or PEFT's.

use std::path::PathBuf;

use openelm_core::{Config, adapter::Adapter, output::check_inputs, weights::model_folder};

use crate::{
    choices::AdapterFormat,
    error::Error,
    hub::{self, Files},
    output,
};

/// Arguments of `openelm convert-adapter`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Adapter of openelm, mlx-lm or PEFT, a folder or a repository, or CoreNet's .pt file
    adapter: PathBuf,

    /// Folder to write
    output: PathBuf,

    /// Model that the adapter was trained on: a folder or a repository; its architecture is read
    #[arg(long, short, value_name = "PATH|REPO")]
    model: PathBuf,

    /// Format to write: mlx (mlx-lm and openelm) or peft
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = AdapterFormat::Mlx)]
    to: AdapterFormat,

    /// No messages
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm convert-adapter openelm_lora_270M.pt lora-270M --model apple/OpenELM-270M
  openelm convert-adapter adapters adapters-peft --model OpenELM-270M --to peft";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let base = args.model.display().to_string();
    args.adapter = hub::local(&args.adapter, &Files::Adapter, args.quiet)?;
    args.model = hub::local(&args.model, &Files::Config, args.quiet)?;
    let inputs = [
        ("adapter", args.adapter.as_path()),
        ("--model", args.model.as_path()),
    ];
    check_inputs(&args.output, inputs)?;
    let adapter = Adapter::load(&args.adapter)?;
    let config = Config::load(model_folder(&args.model)?)?;
    adapter.check_fits(&config)?;
    match args.to {
        AdapterFormat::Mlx => adapter.save(&args.output, &config)?,
        AdapterFormat::Peft => adapter.save_peft(&args.output, &base)?,
    }
    if !args.quiet {
        output::note(&format!(
            "written to {}: {} matrices, {} parameters",
            args.output.display(),
            adapter.targets().len(),
            adapter.parameter_count(),
        ));
    }
    Ok(())
}
