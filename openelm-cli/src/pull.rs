//! `openelm pull`: downloads a repository of the Hugging Face Hub into its cache.

use glob::Pattern;

use crate::{
    error::Error,
    hub::{Files, Hub, RepoType, Repository},
    output,
};

/// Arguments of `openelm pull`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Repository: owner/name or owner/name@revision
    #[arg(value_name = "REPO")]
    repository: String,

    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,

    /// Only files whose path matches this pattern; may be repeated [default: the files of a model,
    /// adapter, tokenizer or data set]
    #[arg(long, value_name = "GLOB")]
    include: Vec<Pattern>,

    /// No files whose path matches this pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Pattern>,

    /// Kind of the repository
    #[arg(long, value_name = "TYPE", default_value_t = RepoType::Model)]
    repo_type: RepoType,

    /// No progress bar and no messages
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm pull apple/OpenELM-270M-Instruct
  openelm pull mlx-community/OpenELM-270M-Instruct --include 'tokenizer*'
  openelm pull meta-llama/Llama-2-7b-hf --include tokenizer.model
  openelm pull allenai/ai2_arc --repo-type dataset

The folder of the files is printed. HF_TOKEN sets a token, HF_HUB_CACHE the folder of the cache.";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let repository = named(&args.repository, args.repo_type, args.revision.as_deref())?;
    let files = match args.repo_type {
        _ if !args.include.is_empty() || !args.exclude.is_empty() => {
            Files::Matching(args.include, args.exclude)
        }
        RepoType::Model => Files::Any,
        RepoType::Dataset => Files::Dataset,
    };
    let snapshot = Hub::open()?.snapshot(&repository, &files, args.quiet)?;
    if snapshot.new_bytes == 0 && !args.quiet {
        let commit = snapshot.commit.get(..7).unwrap_or_default();
        output::note(&format!(
            "{repository}: complete in the cache (commit {commit})"
        ));
    }
    output::write(format!("{}\n", snapshot.folder.display()).as_bytes())
}

/// The repository `name` at `revision`, if one is given.
///
/// # Errors
/// [`Error::Usage`] if the name or the revision is invalid.
pub(crate) fn named(
    name: &str,
    kind: RepoType,
    revision: Option<&str>,
) -> Result<Repository, Error> {
    let Some(repository) = Repository::parse(name, kind) else {
        let problem = format!("REPO: expected owner/name or owner/name@revision, found {name}");
        return Err(Error::Usage(problem));
    };
    let Some(revision) = revision else {
        return Ok(repository);
    };
    if name.contains('@') {
        return Err(Error::Usage("--revision: REPO has a revision too".into()));
    }
    repository.at(revision).ok_or_else(|| {
        let problem = format!("--revision: expected a branch, tag or commit, found {revision}");
        Error::Usage(problem)
    })
}
