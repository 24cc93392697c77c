//! `openelm push`: uploads a model or adapter to the Hugging Face Hub.

use std::path::PathBuf;

use crate::{
    error::Error,
    hub::{RepoType, Upload},
    output,
    pull::named,
};

/// Arguments of `openelm push`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of a model or adapter
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,

    /// Repository, which is made if there is none: owner/name
    #[arg(value_name = "REPO")]
    repository: String,

    /// Make a private repository
    #[arg(long)]
    private: bool,

    /// Branch to commit to; it is made if there is none [default: main]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,

    /// No progress bar and no messages
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm push OpenELM-270M-4bit me/OpenELM-270M-4bit
  openelm push adapters me/OpenELM-270M-tales --private

HF_TOKEN sets a token with write access. A repository without a README.md gets a model card. The
address of the commit is printed.";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let revision = args.revision.as_deref();
    let upload = Upload {
        repository: named(&args.repository, RepoType::Model, revision)?,
        folder: args.folder,
        is_private: args.private,
        quiet: args.quiet,
    };
    let commit = upload.run()?;
    output::write(format!("{commit}\n").as_bytes())
}
