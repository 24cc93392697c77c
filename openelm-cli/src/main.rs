//! `openelm`: run, convert, fine-tune and inspect OpenELM language models.
//!
//! Text goes to stdout, everything else to stderr. Exit code 0 on success, 1 on failure, 2 for
//! bad usage, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

mod adapters;
mod average;
mod bar;
mod bench;
mod betas;
mod cache_prompt;
mod chart;
mod chat;
mod choices;
mod constraint;
mod convert;
mod convert_adapter;
mod copied_keys;
mod corenet_yaml;
mod curves;
mod error;
mod evaluate;
mod finetune;
mod fuse;
mod generate;
mod given;
mod hosts;
mod hub;
mod info;
mod interrupt;
mod kv_cache;
mod log;
mod model;
mod models;
mod output;
mod paths;
mod plot;
mod pretrain;
mod prompt_source;
mod pull;
mod push;
mod quantize;
mod ranks;
mod sampling;
mod score;
mod serve;
mod settings;
mod tokenizer;
mod training;

use error::Error;

/// Run, convert, fine-tune and inspect Apple's OpenELM language models on MLX.
#[derive(Parser)]
#[command(name = "openelm", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  openelm generate --model mlx-community/OpenELM-270M-Instruct --prompt 'Once upon a time'
  openelm chat --model OpenELM-270M-Instruct
  openelm serve --model OpenELM-270M-Instruct
  openelm convert OpenELM-270M OpenELM-270M-4bit -q
  openelm finetune --model OpenELM-270M --data stories
  openelm info 3B
  openelm bench --model OpenELM-270M

See `openelm help COMMAND` for the options of a command.";

#[derive(Subcommand)]
enum Command {
    /// Generate text from a prompt
    Generate(Box<generate::Args>),
    /// Chat with a model
    Chat(Box<chat::Args>),
    /// Write the keys and values of a prompt to a file, for `generate`
    CachePrompt(Box<cache_prompt::Args>),
    /// Score continuations of contexts, or texts, by their log-likelihood
    Score(Box<score::Args>),
    /// Serve a model over HTTP with OpenAI's interface
    Serve(Box<serve::Args>),
    /// Average the weights of checkpoints
    Average(Box<average::Args>),
    /// Convert a checkpoint to MLX, Hugging Face or GGUF; quantise it
    Convert(Box<convert::Args>),
    /// Quantise a model with calibration text: GPTQ, AWQ, DWQ, mixed bits; report the differences
    Quantize(Box<quantize::Args>),
    /// Fine-tune a model: LoRA, DoRA, full, or DPO on preference pairs
    Finetune(Box<finetune::Args>),
    /// Pre-train a model from random weights, or from the weights of a model
    Pretrain(Box<pretrain::Args>),
    /// Draw the losses of training runs as one picture
    Plot(plot::Args),
    /// Measure perplexity and scores on tasks; compare two models
    Evaluate(Box<evaluate::Args>),
    /// Merge an adapter into its model
    Fuse(fuse::Args),
    /// Convert an adapter to the format of mlx-lm or PEFT
    ConvertAdapter(convert_adapter::Args),
    /// Train a tokenizer
    Tokenizer(tokenizer::Args),
    /// Show a model's architecture, parameters and memory
    Info(info::Args),
    /// Measure load time, speed and memory
    Bench(bench::Args),
    /// Download a repository of the Hugging Face Hub into its cache
    Pull(pull::Args),
    /// Upload a model or adapter to the Hugging Face Hub
    Push(push::Args),
    /// List the repositories in the cache of the Hugging Face Hub
    Models(models::Args),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  openelm completions zsh > ~/.zfunc/_openelm")]
    Completions {
        /// Shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    interrupt::ignore_file_size_signal();
    let parsed = with_negative_numbers(Cli::command())
        .try_get_matches()
        .and_then(|matches| {
            let command = chosen(&matches);
            Ok((Cli::from_arg_matches(&matches)?, command))
        });
    let (cli, command) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Generate(args) => generate::run(*args),
        Command::Chat(args) => chat::run(*args),
        Command::CachePrompt(args) => cache_prompt::run(*args),
        Command::Score(args) => score::run(*args),
        Command::Serve(args) => serve::run(*args),
        Command::Average(args) => average::run(*args),
        Command::Convert(args) => convert::run(*args),
        Command::Quantize(args) => quantize::run(*args),
        Command::Finetune(args) => finetune::run(*args),
        Command::Pretrain(args) => pretrain::run(*args),
        Command::Plot(args) => plot::run(args),
        Command::Evaluate(args) => evaluate::run(*args),
        Command::Fuse(args) => fuse::run(args),
        Command::ConvertAdapter(args) => convert_adapter::run(args),
        Command::Tokenizer(args) => tokenizer::run(args),
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Push(args) => push::run(args),
        Command::Models(args) => models::run(args),
        Command::Completions { shell } => completions(shell),
    };
    finish(result, &command)
}

/// Lets every value begin with `-` and a digit, so that an error names the option.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let accept = |arg: clap::Arg| {
        let takes_values = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_values)
    };
    let command = command.mut_args(accept);
    command.mut_subcommands(with_negative_numbers)
}

/// The subcommand of the command line.
fn chosen(mut matches: &ArgMatches) -> clap::Command {
    let mut command = Cli::command();
    while let Some((name, inner)) = matches.subcommand() {
        command = command.find_subcommand(name).cloned().unwrap_or(command);
        matches = inner;
    }
    command
}

fn finish(result: Result<(), Error>, command: &clap::Command) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        // The starting process reports it.
        Err(error @ Error::Interrupted(_)) if ranks::is_started() => {
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            let error = error.of(command);
            output::note(&format!("openelm: {}", error.message(command)));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints help, or the error of a command line in one line.
fn usage(error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if !is_help {
        output::note(&format!("openelm: {}", problem(&error.to_string())));
    } else if let Err(problem) = error.print()
        && !error.use_stderr()
    {
        return finish(Err(Error::Output(problem)), &Cli::command());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The problem in clap's text of an error, without the usage. Its lines are joined; lines after a
/// colon are a list.
fn problem(text: &str) -> String {
    let hints = ["\n\nUsage:", "\n\nFor more information"];
    let end = hints.iter().filter_map(|hint| text.find(hint)).min();
    let (text, _) = text.split_at(end.unwrap_or(text.len()));
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let (mut problem, mut in_list) = (String::new(), false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (separator, line) = match line.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None if problem.ends_with(':') || !in_list => (" ", line),
            None => (", ", line),
        };
        in_list = in_list && separator != "; " || problem.ends_with(':');
        if !problem.is_empty() {
            problem.push_str(separator);
        }
        problem.push_str(line);
    }
    problem
}

fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "openelm", &mut script);
    output::write(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_command_line_are_one_line() {
        let found = |args: &[&str]| {
            let command = with_negative_numbers(Cli::command());
            let args = ["openelm", "generate", "--model", "m"].iter().chain(args);
            problem(&command.try_get_matches_from(args).unwrap_err().to_string())
        };
        for (args, expected) in [
            (
                &["--regex", "a", "--choice", "b"][..],
                "the argument '--regex <REGEX>' cannot be used with '--choice <TEXT>'",
            ),
            (
                &["--prompts", "a", "--prompt", "b", "--json"],
                "the argument '--prompts <FILE>' cannot be used with: --prompt <TEXT>, --json",
            ),
            (
                &["--logprobs", "2"],
                "the following required arguments were not provided: --json",
            ),
            (
                &["--max-token", "2"],
                "unexpected argument '--max-token' found; a similar argument exists: '--max-tokens'",
            ),
            (
                &["--at-limit", "end", "--regex", "a"],
                "invalid value 'end' for '--at-limit <END>' [possible values: stop, error, close]",
            ),
            (
                &["--temp"],
                "a value is required for '--temp <T>' but none was supplied",
            ),
        ] {
            assert_eq!(found(args), expected);
        }
    }
}
