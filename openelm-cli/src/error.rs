//! Errors of the program and their exit codes.

use std::{io, path::Path};

use clap::{Arg, Command};
use openelm_core::{Remedy, train::RunDifference};

use crate::{hub, interrupt::Signal, ranks};

/// An error, shown to the user in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An error of the library.
    #[error(transparent)]
    Core(#[from] openelm_core::Error),
    /// An error of the server.
    #[error(transparent)]
    Server(#[from] openelm_server::Error),
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
    /// The Hub refuses access to a repository: it is gated, or the token is invalid.
    #[error("{subject}: {problem}")]
    HubAccess {
        /// The repository or file.
        subject: String,
        /// The problem and its solution.
        problem: String,
    },
    /// The Hub has no such repository, revision or file.
    #[error("{subject}: {problem}")]
    HubNotFound {
        /// The repository or file.
        subject: String,
        /// The problem.
        problem: String,
    },
    /// The Hub may not be used, and the cache does not have the files.
    #[error("{subject}: {problem}; offline (HF_HUB_OFFLINE)")]
    HubOffline {
        /// The repository.
        subject: String,
        /// The problem.
        problem: String,
    },
    /// The Hub could not be reached, or could not answer now.
    #[error("{subject}: {problem}")]
    HubNetwork {
        /// The repository, file or host.
        subject: String,
        /// The problem.
        problem: String,
    },
    /// The Hub's answer is invalid: a wrong hash, an unsafe name.
    #[error("{subject}: {problem}")]
    HubContent {
        /// The repository or file.
        subject: String,
        /// The problem.
        problem: String,
    },
    /// The Hub cache could not be read or written.
    #[error("{path}: {problem}")]
    HubCache {
        /// The file or folder.
        path: String,
        /// The problem.
        problem: String,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// A long command's output could not be written. It has ended early with its result saved, or
    /// its result is complete.
    #[error("standard output: {source}; {kept}")]
    Unreported {
        /// The failure of the output.
        source: io::Error,
        /// The result that was kept, and how to continue.
        kept: String,
    },
    /// Signals could not be handled.
    #[error("cannot handle Ctrl-C: {0}")]
    Interrupt(io::Error),
    /// A signal ended the command.
    #[error("{0}")]
    Interrupted(Signal),
}

impl From<Signal> for Error {
    fn from(signal: Signal) -> Self {
        Self::Interrupted(signal)
    }
}

/// Constructors of the errors of the Hub.
impl Error {
    pub(crate) fn hub_access(subject: &str, problem: &str) -> Self {
        let (subject, problem) = (subject.into(), problem.into());
        Self::HubAccess { subject, problem }
    }

    pub(crate) fn hub_not_found(subject: &str, problem: &str) -> Self {
        let (subject, problem) = (subject.into(), problem.into());
        Self::HubNotFound { subject, problem }
    }

    pub(crate) fn hub_offline(subject: &str, problem: &str) -> Self {
        let (subject, problem) = (subject.into(), problem.into());
        Self::HubOffline { subject, problem }
    }

    pub(crate) fn hub_network(subject: &str, problem: &str) -> Self {
        let (subject, problem) = (subject.into(), problem.into());
        Self::HubNetwork { subject, problem }
    }

    pub(crate) fn hub_content(subject: &str, problem: &str) -> Self {
        let (subject, problem) = (subject.into(), problem.into());
        Self::HubContent { subject, problem }
    }

    pub(crate) fn hub_cache(path: &Path, error: io::Error) -> Self {
        Self::HubCache {
            path: path.display().to_string(),
            problem: error.to_string(),
        }
    }

    /// The error of a path that is the name of a repository too, and does not exist.
    pub(crate) fn of_absent(mut self) -> Self {
        if let Self::HubNotFound { problem, .. }
        | Self::HubNetwork { problem, .. }
        | Self::HubOffline { problem, .. } = &mut self
        {
            problem.insert_str(0, "no such file or folder; as a repository: ");
        }
        self
    }
}

impl Error {
    /// The error, as one of the command line if a flag of `command` sets the value at fault.
    pub(crate) fn of(self, command: &Command) -> Self {
        match &self {
            Self::Core(error) => setting(command, error).map_or(self, Self::Usage),
            _ => self,
        }
    }

    /// An error of the output of a command that is no filter, with the result that was `kept`.
    pub(crate) fn unreported(self, kept: impl FnOnce() -> String) -> Self {
        match self {
            Self::Output(source) => Self::Unreported {
                source,
                kept: kept(),
            },
            other => other,
        }
    }

    /// The error in one line. The core's name of an option (`top_p`) becomes the flag of `command`
    /// (`--top-p`).
    pub(crate) fn message(&self, command: &Command) -> String {
        match self {
            Self::Core(openelm_core::Error::Option { option, problem }) => {
                format!("{}: {problem}", flag(command, option))
            }
            Self::Server(openelm_server::Error::Option { option, problem }) => {
                format!("{}: {problem}", flag(command, option))
            }
            Self::Server(openelm_server::Error::Listen {
                option,
                address,
                source,
            }) => format!("{}: {address}: {source}", flag(command, option)),
            Self::Core(error @ openelm_core::Error::Incomplete { .. }) => {
                let flag = flag(command, "at_limit");
                error.to_string().replacen("at_limit", &flag, 1)
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
            Self::Usage(_)
            | Self::Core(openelm_core::Error::Option { .. })
            | Self::Server(openelm_server::Error::Option { .. }) => 2,
            Self::Interrupted(signal) => signal.exit_code(),
            Self::Rank { code, .. } => *code,
            Self::Core(openelm_core::Error::Group { .. }) if ranks::is_started() => {
                ranks::LOST_GROUP
            }
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
        Remedy::Tokenizer if has("no-tokenizer") => {
            format!("--no-tokenizer omits it; {}", hub::advice())
        }
        Remedy::Tokenizer if has("tokenizer") => hub::advice(),
        Remedy::Tokenizer => "copy it into the model's folder".into(),
        Remedy::Force if has("force") => "--force replaces it".into(),
        Remedy::Force => "choose another path".into(),
        Remedy::Architecture if has("architecture") => {
            "--architecture states the architecture".into()
        }
        Remedy::StartFrom(text) if has("start-from") => {
            format!("{text}: --start-from PATH|REPO sets its weights")
        }
        Remedy::Resume if has("resume") => {
            "resume it with --resume, or choose another folder".into()
        }
        Remedy::Convert => "convert it first: openelm convert FILE FOLDER".into(),
        Remedy::Download(repository) => format!(
            "if it is a repository of the Hugging Face Hub, download it first: openelm pull \
             {repository}"
        ),
        other => other.to_string(),
    }
}

/// The message for a setting of a new architecture that a flag of `command` sets.
fn setting(command: &Command, error: &openelm_core::Error) -> Option<String> {
    match error {
        // Settings of a file have its path.
        openelm_core::Error::Config { path, key, problem } if path == Path::new("config") => {
            Some(format!("--{}: {problem}", long_name(command, key)?))
        }
        _ => None,
    }
}

/// The flag of `command` for the core's `option`; `option` itself if there is none.
fn flag(command: &Command, option: &str) -> String {
    match long_name(command, option) {
        Some(long) => format!("--{long}"),
        None => option.to_owned(),
    }
}

/// The long name of the flag of `command` that decides the core's `option`.
fn long_name<'c>(command: &'c Command, option: &str) -> Option<&'c str> {
    let own = option.replace('_', "-");
    let is_long = |name| {
        let mut arguments = command.get_arguments();
        arguments.any(|arg| arg.get_long() == Some(name))
    };
    // mlx-lm's quantisation flags.
    let quantization = format!("q-{own}");
    let other = match option {
        "momentum" => "optimizer",
        "adapters" => "adapter",
        "banned_strings" => "banned-string",
        // The special tokens of a tokenizer must be in the vocabulary.
        "bos_token_id" | "eos_token_id" => "vocab-size",
        "decay_vectors" => "mlx-lm-compat",
        "dry_sequence_breakers" => "dry-sequence-breaker",
        "extra_eos_tokens" => "extra-eos-token",
        // `openelm evaluate` has data sets of tasks in `--data`.
        "files" if is_long("perplexity") => "perplexity",
        "files" | "groups" | "valid" => "data",
        "format" => "to",
        "max_length" => "max-seq-length",
        "max_shard_bytes" => "max-shard-size",
        "num_kv_heads" => "num-gqa-groups",
        "num_query_heads" => "qkv-multipliers",
        "preferences" => "dpo",
        "prompt" => "prompt-tokens",
        "rope_max_length" => "max-context-length",
        // The schedule's length follows from the iterations.
        "schedule_steps" => "iters",
        "world" => "processes",
        _ => "",
    };
    let find = |name: &str| {
        let has_name = |arg: &&Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        };
        command.get_arguments().find(has_name)?.get_long()
    };
    [own.as_str(), &quantization, other]
        .into_iter()
        .find_map(find)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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

    /// Areas of the core's source, and the commands whose options they check.
    const AREAS: [(&str, &[&str]); 12] = [
        ("adapter/", &["finetune", "generate"]),
        ("config/layer_wise.rs", &["pretrain"]),
        ("config/tensors.rs", &["pretrain"]),
        ("convert/", &["convert"]),
        ("data/corpus/", &["pretrain"]),
        ("data/dataset/", &["finetune"]),
        ("generation/", &["generate"]),
        ("mlx/quantization.rs", &["convert"]),
        ("quantize/", &["quantize"]),
        ("tokenizer/train/", &["train"]),
        ("training/pretrain/", &["pretrain"]),
        ("training/", &["finetune", "pretrain"]),
    ];

    /// Names that no command line can reach, and the reason.
    const UNREACHABLE: [(&str, &str); 15] = [
        ("MLX_RANK", "an environment variable"),
        ("average_with", "`average` takes no adapter"),
        ("batch", "a batch without targets is no option"),
        ("grad_accumulation_steps", "1 in every pre-training"),
        ("lora_embedding_A", "a tensor"),
        ("layer", "in quantisation, a part that always exists"),
        ("messages", "the rows of a file, which its error names"),
        ("model", "the first argument of `quantize`"),
        ("norm", "a part of a layer"),
        ("optimizer", "AdamW in every pre-training of the tool"),
        (
            "prompt_cache",
            "the file of a prompt cache is checked when it is read",
        ),
        ("projection", "a part of a layer"),
        ("rank", "in pre-training, a value of the environment"),
        ("reference", "only the trainer's callers set it"),
        ("rms_norm_eps", "new models have the default"),
    ];

    /// The names after the calls that make errors of options, or set members of a resume key.
    fn names(source: &str) -> Vec<String> {
        let source = source.split("\n#[cfg(test)]").next().unwrap();
        let calls = [
            "Error::option(",
            "at_least(",
            "option: ",
            "refuse(",
            "wrong(",
            "other_data(",
            "unmatched(",
            "check_fits(",
            "key.set(",
            "self.set(",
            "within(path, ",
            "config(path, ",
            " = (",
            "            (",
        ];
        let mut found = Vec::new();
        for call in calls {
            for (_, rest) in source
                .match_indices(call)
                .map(|(at, _)| source.split_at(at + call.len()))
            {
                let Some(rest) = rest.trim_start().strip_prefix('"') else {
                    continue;
                };
                let (name, rest) = rest.split_once('"').unwrap();
                let is_name =
                    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
                if is_name && rest.starts_with(',') {
                    found.push(name.to_owned());
                }
            }
        }
        // The options of a saved corpus are compared by a macro.
        if let Some((_, list)) = source.split_once("        same!(") {
            let list = list.split(')').next().unwrap().split(',');
            found.extend(list.map(|name| name.trim().to_owned()));
        }
        found
    }

    fn sources(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                into.push(path);
            }
        }
    }

    #[test]
    fn every_option_of_the_core_has_a_flag() {
        let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openelm-core/src");
        let (mut files, mut checked, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        sources(&core, &mut files);
        let all = crate::Cli::command();
        for file in files {
            let place = file.strip_prefix(&core).unwrap().to_str().unwrap();
            let Some((_, commands)) = AREAS.iter().find(|(area, _)| place.starts_with(area)) else {
                continue;
            };
            for name in names(&std::fs::read_to_string(&file).unwrap()) {
                let has_flag = |command: &&str| {
                    let tokenizer = all.find_subcommand("tokenizer").unwrap();
                    let found = all.find_subcommand(command);
                    let found = found.or(tokenizer.find_subcommand(command));
                    flag(found.unwrap(), &name).starts_with("--")
                };
                if !commands.iter().any(has_flag) {
                    missing.push(format!("{place}: {name}"));
                }
                checked.push(name);
            }
        }
        // The members of an architecture that new models can differ in.
        let architecture = openelm_core::config::Preset::Size270M.config().to_json();
        let architecture: serde_json::Value = serde_json::from_str(&architecture).unwrap();
        let pretrain = all.find_subcommand("pretrain").unwrap();
        for name in architecture.as_object().unwrap().keys() {
            let fixed = [
                "model_type",
                "activation_fn_name",
                "normalization_layer_name",
            ];
            let fixed = [&fixed[..], &["ffn_with_glu", "normalize_qk_projections"]].concat();
            if !fixed.contains(&name.as_str()) && !flag(pretrain, name).starts_with("--") {
                missing.push(format!("config.json: {name}"));
            }
        }
        for name in ["learning_rate", "betas", "rank", "keys_regex", "vocab_size"] {
            assert!(
                checked.iter().any(|found| found == name),
                "{name} is not found"
            );
        }
        for (name, reason) in UNREACHABLE {
            let known = missing.len();
            missing.retain(|found| !found.ends_with(&format!(": {name}")));
            assert!(missing.len() < known, "{name} is not {reason}");
        }
        assert!(missing.is_empty(), "{missing:#?}");
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
                &hub::advice(),
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
                "start a new run: --start-from PATH|REPO sets its weights",
                "start a new run",
            ),
            (
                Remedy::Resume,
                "resume",
                "resume it with --resume, or choose another folder",
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
