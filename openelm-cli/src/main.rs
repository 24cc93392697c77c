//! `openelm`: run and inspect OpenELM language models.
//!
//! Text goes to stdout, everything else to stderr. Exit code 0 on success, 1 on failure, 2 for
//! bad usage, 130 after Ctrl-C.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

mod bench;
mod error;
mod generate;
mod info;
mod interrupt;
mod model;
mod output;

use error::Error;

/// Run and inspect Apple's OpenELM language models on MLX.
#[derive(Parser)]
#[command(name = "openelm", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  openelm generate --model OpenELM-270M --prompt 'Once upon a time'
  openelm info 3B
  openelm bench --model OpenELM-270M

`openelm help COMMAND` has more of each.";

#[derive(Subcommand)]
enum Command {
    /// Continue a prompt
    Generate(generate::Args),
    /// Show a model's architecture, parameters and memory
    Info(info::Args),
    /// Measure load time, speed and memory
    Bench(bench::Args),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  openelm completions zsh > ~/.zfunc/_openelm")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions { shell } => completions(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("openelm: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "openelm", &mut script);
    output::write(&script)
}
