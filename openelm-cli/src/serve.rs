//! `openelm serve`: an HTTP server with OpenAI's interface.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use openelm_core::{
    engine::Engine,
    generation::{GenerateOptions, KvCacheOptions},
};
use openelm_server::{
    ApiKeys, DEFAULT_HOST, DEFAULT_PORT, Listen, Server, ServerOptions, Shutdown,
};

use crate::{
    adapters::{fetched, folder_and_strength},
    choices::Template,
    error::Error,
    generate::prompt::template,
    given::Given,
    interrupt::Interrupt,
    kv_cache::KvCacheArgs,
    log::{Log, LogLevel},
    model::ModelArgs,
    output::note,
    sampling::SamplingArgs,
};

/// Arguments of `openelm serve`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    model: ModelArgs,

    /// Adapter of openelm, mlx-lm or PEFT: a folder or a repository, with an optional strength as in
    /// tales=0.5, for all requests that select no adapters; may be repeated, adapters are summed
    #[arg(long, value_name = "PATH|REPO")]
    adapter_path: Vec<String>,

    /// Adapter that requests select by this name; may be repeated
    #[arg(long, value_name = "NAME=PATH|REPO")]
    adapter: Vec<String>,

    /// Name of the model in requests and responses [default: the model folder's name]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,

    /// Host to listen on; other addresses than those of this machine are reached by others
    #[arg(
        long,
        value_name = "HOST",
        default_value = DEFAULT_HOST,
        conflicts_with = "unix_socket"
    )]
    host: String,

    /// TCP port; 0 is any free one
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_PORT,
        conflicts_with = "unix_socket"
    )]
    port: u16,

    /// Listen on a Unix socket at this path, which only this user can open
    #[arg(long, value_name = "PATH")]
    unix_socket: Option<PathBuf>,

    /// File of API keys, one a line: each request needs one, as `Authorization: Bearer KEY`
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Origins of web pages that may use the server, separated by commas; `*` is any [default:
    /// none]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    allowed_origins: Vec<String>,

    /// Chat template [default: by the model's name and files, else plain]
    #[arg(long, value_name = "NAME")]
    chat_template: Option<Template>,

    /// Maximum number of tokens of a text whose request has no limit
    #[arg(long, short = 'n', default_value_t = GenerateOptions::default().max_tokens, value_name = "N")]
    max_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// Draft up to N tokens from an earlier occurrence of the last tokens, and verify them in one
    /// pass; 0 is off
    #[arg(
        long,
        visible_alias = "prompt-lookup-num-tokens",
        default_value_t = GenerateOptions::default().prompt_lookup,
        value_name = "N"
    )]
    prompt_lookup: usize,

    /// Prompt tokens per prefill step [default: 128 on a CPU, 512 on a GPU]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<usize>,

    #[command(flatten)]
    kv_cache: KvCacheArgs,

    /// Limit of the keys and values that are kept for later prompts, in bytes; 0 keeps none
    /// [default: 256 MiB]
    #[arg(long, value_name = "N")]
    prompt_cache_bytes: Option<usize>,

    /// Maximum number of texts that are generated at the same time
    #[arg(long, default_value_t = ServerOptions::default().decode_concurrency, value_name = "N")]
    decode_concurrency: usize,

    /// Maximum number of requests that wait; further ones are refused with the status 429
    #[arg(long, default_value_t = ServerOptions::default().max_queue, value_name = "N")]
    max_queue: usize,

    /// Maximum number of open connections; further ones wait
    #[arg(long, default_value_t = ServerOptions::default().max_connections, value_name = "N")]
    max_connections: usize,

    /// Maximum size of a request's body in bytes
    #[arg(long, default_value_t = ServerOptions::default().max_body_bytes, value_name = "N")]
    max_body_bytes: usize,

    /// Longest time of a request in seconds
    #[arg(long, default_value_t = ServerOptions::default().request_timeout.as_secs(), value_name = "N")]
    request_timeout: u64,

    /// Longest time in seconds to receive a request, and without progress of a response
    #[arg(long, default_value_t = ServerOptions::default().io_timeout.as_secs(), value_name = "N")]
    io_timeout: u64,

    /// Longest time in seconds that running requests have after a signal
    #[arg(long, default_value_t = ServerOptions::default().drain_timeout.as_secs(), value_name = "N")]
    drain_timeout: u64,

    /// Lowest level of the log on standard error; each request is a line of `info`
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: LogLevel,

    /// No progress bar and no notes; the log stays
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm serve --model apple/OpenELM-270M-Instruct --tokenizer auto
  openelm serve --model OpenELM-270M --temp 0.7 --adapter stories=adapters/stories
  openelm serve --model OpenELM-270M --host 0.0.0.0 --api-key-file keys.txt

The first Ctrl-C or SIGTERM ends the server once its requests have ended, the second at once.";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    // Checked before the model loads, so that invalid options fail at once.
    args.kv_cache.check(&args.given, false)?;
    let generate = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling(&args.given)?,
        prompt_lookup: args.prompt_lookup,
        prefill_chunk: args.prefill_chunk,
        kv_cache: args.kv_cache.over(KvCacheOptions::default()),
        ..GenerateOptions::default()
    };
    args.model.fetch(args.quiet)?;
    let adapters = Adapters::read(&args)?;
    let path = &args.model.model;
    let options = ServerOptions {
        served_model_name: args.served_model_name.unwrap_or_else(|| model_name(path)),
        chat_template: template(args.chat_template, path)?,
        generate,
        adapters: adapters.selectable,
        decode_concurrency: args.decode_concurrency,
        max_queue: args.max_queue,
        max_connections: args.max_connections,
        max_body_bytes: args.max_body_bytes,
        request_timeout: Duration::from_secs(args.request_timeout),
        io_timeout: Duration::from_secs(args.io_timeout),
        drain_timeout: Duration::from_secs(args.drain_timeout),
        allowed_origins: args.allowed_origins,
        api_keys: match &args.api_key_file {
            Some(file) => ApiKeys::read(file)?,
            None => ApiKeys::default(),
        },
    };
    let name = options.served_model_name.clone();
    let listen = match args.unix_socket {
        Some(path) => Listen::Unix(path),
        None => Listen::Tcp {
            host: args.host,
            port: args.port,
        },
    };
    let server = Server::open(options, &listen)?;
    let engine = Engine::start()?;
    let model = args.model.load_on(&engine, args.quiet)?;
    model.add_adapters_blocking(adapters.folders, adapters.active)?;
    if let Some(bytes) = args.prompt_cache_bytes {
        model.set_prefix_cache_limit(bytes)?;
    }
    let _log = Log::start(args.log_level).map_err(openelm_server::Error::Runtime)?;
    for warning in server.warnings() {
        note(&format!("warning: {warning}"));
    }
    let shutdown = Shutdown::default();
    let interrupt = Interrupt::default();
    let of_signal = shutdown.clone();
    interrupt.on_first(move || of_signal.begin());
    interrupt.listen()?;
    if !args.quiet {
        note(&format!("serving {name} at {}", server.address()));
    }
    Ok(server.run(model, &shutdown)?)
}

/// The adapters of the command line.
#[derive(Default)]
struct Adapters {
    /// All folders by name.
    folders: Vec<(String, PathBuf)>,
    /// Those of requests that select none, with their strengths.
    active: Vec<(String, f32)>,
    /// Those that requests select.
    selectable: Vec<(String, f32)>,
}

impl Adapters {
    /// Downloads the adapters that are names of repositories.
    fn read(args: &Args) -> Result<Self, Error> {
        let mut adapters = Self::default();
        for given in &args.adapter {
            let parts = given.split_once('=');
            let (name, folder) = parts.filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Error::Usage(format!("--adapter: expected NAME=PATH, found {given:?}"))
            })?;
            let folder = fetched(folder, args.quiet)?;
            let (folder, strength) = folder_and_strength(&folder)?;
            adapters.folders.push((name.into(), folder.into()));
            adapters.selectable.push((name.into(), strength));
        }
        for given in &args.adapter_path {
            let given = fetched(given, args.quiet)?;
            let (folder, strength) = folder_and_strength(&given)?;
            adapters.folders.push((folder.into(), folder.into()));
            adapters.active.push((folder.into(), strength));
        }
        Ok(adapters)
    }
}

/// The name of the model at `path`: that of its repository in the Hugging Face Hub cache, or of its
/// folder.
fn model_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut names = full.iter().filter_map(|name| name.to_str());
    let repository = names
        .clone()
        .find_map(|name| name.strip_prefix("models--"))
        .map(|name| name.replacen("--", "/", 1));
    let folder = names.next_back().unwrap_or_default();
    repository.unwrap_or_else(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_name_of_its_repository_or_folder() {
        for (path, name) in [
            ("/absent/OpenELM-270M", "OpenELM-270M"),
            (
                "/absent/models--apple--OpenELM-270M/snapshots/01",
                "apple/OpenELM-270M",
            ),
        ] {
            assert_eq!(model_name(path.as_ref()), name);
        }
    }
}
