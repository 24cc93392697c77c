//! Errors of the program and their exit codes.

use clap::{Arg, Command};
use openelm_core::{Remedy, train::RunDifference};

/// An error, shown to the user in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An error of the library.
    #[error(transparent)]
    Core(#[from] openelm_core::Error),
    /// Invalid command line.
    #[error("{0}")]
    Usage(String),
    /// The prompt's file or stream could not be read.
    #[error("{place}: {problem}")]
    Prompt {
        /// File name, or standard input.
        place: String,
        /// The problem.
        problem: String,
    },
    /// A settings or metrics file that could not be read, or a plot that could not be written.
    #[error("{place}: {problem}")]
    Settings {
        /// The file.
        place: String,
        /// The problem.
        problem: String,
    },
    /// One of several training processes ended early; it has reported the cause.
    #[error("{problem}")]
    Rank {
        /// The rank and its exit status.
        problem: String,
        /// Exit code.
        code: u8,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// Ctrl-C could not be handled.
    #[error("cannot handle Ctrl-C: {0}")]
    Interrupt(#[from] ctrlc::Error),
    /// Ctrl-C was pressed.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The error in one line. The core's name of an option (`top_p`) becomes the flag of `command`
    /// (`--top-p`).
    pub(crate) fn message(&self, command: &Command) -> String {
        match self {
            Self::Core(openelm_core::Error::Option { option, problem }) => {
                format!("{}: {problem}", flag(command, option))
            }
            Self::Core(openelm_core::Error::OtherRun { path, differences }) => {
                let rename = |difference: &RunDifference| RunDifference {
                    option: flag(command, &difference.option),
                    ..difference.clone()
                };
                let differences = differences.iter().map(rename).collect();
                let path = path.clone();
                openelm_core::Error::OtherRun { path, differences }.to_string()
            }
            Self::Core(openelm_core::Error::WithRemedy { error, remedy }) => {
                format!("{error}; {}", advice(command, remedy))
            }
            other => other.to_string(),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Core(openelm_core::Error::Option { .. }) => 2,
            Self::Interrupted => 130,
            Self::Rank { code, .. } => *code,
            _ => 1,
        }
    }
}

/// The `remedy` as a flag of `command`, or in general words if the command has no such flag.
fn advice(command: &Command, remedy: &Remedy) -> String {
    let has = |name: &str| {
        let mut flags = command.get_arguments().filter_map(Arg::get_long);
        flags.any(|flag| flag == name)
    };
    match remedy {
        Remedy::Tokenizer if has("tokenizer") => "--tokenizer PATH sets its path".into(),
        Remedy::Tokenizer => "copy it into the model's folder".into(),
        Remedy::Force if has("force") => "--force replaces it".into(),
        Remedy::Force => "choose another path".into(),
        Remedy::Architecture if has("architecture") => {
            "--architecture states the architecture".into()
        }
        Remedy::StartFrom(text) if has("start-from") => {
            format!("{text}: --start-from FOLDER sets its weights")
        }
        Remedy::Resume if has("resume") => "--resume resumes it; or choose another folder".into(),
        Remedy::Convert => "convert it first: openelm convert FILE FOLDER".into(),
        Remedy::Download(repository) => format!(
            "if it is a repository of the Hugging Face Hub, download it first (hf download \
             {repository}) and give the folder that is printed"
        ),
        other => other.to_string(),
    }
}

/// The flag of `command` for the core's `option`; `option` itself if there is none.
fn flag(command: &Command, option: &str) -> String {
    let name = match option {
        // The schedule's length follows from the iterations.
        "schedule_steps" => "iters".to_owned(),
        "files" => "data".to_owned(),
        _ => option.replace('_', "-"),
    };
    // mlx-lm's quantisation flags.
    let quantization = format!("q-{name}");
    let has_name = |arg: &&Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let mut names = arg.get_long().into_iter().chain(aliases);
        names.any(|known| known == name || known == quantization)
    };
    let found = command.get_arguments().find(has_name);
    match found.and_then(Arg::get_long) {
        Some(long) => format!("--{long}"),
        None => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        let command = Command::new("test").args([
            Arg::new("top_p").long("top-p"),
            Arg::new("iters").long("iters").alias("steps"),
            Arg::new("q_bits").long("q-bits"),
        ]);
        for (option, expected) in [
            ("top_p", "--top-p: out of range"),
            ("steps", "--iters: out of range"),
            ("bits", "--q-bits: out of range"),
            ("messages", "messages: out of range"),
        ] {
            let error = Error::Core(openelm_core::Error::Option {
                option,
                problem: "out of range".into(),
            });
            assert_eq!(error.message(&command), expected);
        }
    }
    #[test]
    fn errors_name_the_flag_that_resolves_them() {
        let problem = openelm_core::Error::Destination {
            path: "model".into(),
            problem: "exists".into(),
        };
        let advised = |remedy: Remedy| {
            let problem = openelm_core::Error::Destination {
                path: "model".into(),
                problem: "exists".into(),
            };
            let error = Box::new(problem);
            Error::Core(openelm_core::Error::WithRemedy { error, remedy })
        };
        let bare = Command::new("test");
        assert_eq!(Error::Core(problem).message(&bare), "model: exists");
        for (remedy, flag, with_flag, without) in [
            (
                Remedy::Force,
                "force",
                "--force replaces it",
                "choose another path",
            ),
            (
                Remedy::Tokenizer,
                "tokenizer",
                "--tokenizer PATH sets its path",
                "copy it into the model's folder",
            ),
            (
                Remedy::Architecture,
                "architecture",
                "--architecture states the architecture",
                "state the architecture: the name of a size, or a config.json",
            ),
            (
                Remedy::StartFrom("start a new run"),
                "start-from",
                "start a new run: --start-from FOLDER sets its weights",
                "start a new run",
            ),
            (
                Remedy::Resume,
                "resume",
                "--resume resumes it; or choose another folder",
                "resume it, or choose another folder",
            ),
        ] {
            let command = bare.clone().arg(Arg::new(flag).long(flag));
            let error = advised(remedy);
            assert_eq!(
                error.message(&command),
                format!("model: exists; {with_flag}")
            );
            assert_eq!(error.message(&bare), format!("model: exists; {without}"));
        }
    }
}
