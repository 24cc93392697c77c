//! `openelm models`: lists the repositories in the cache of the Hugging Face Hub, and verifies their
//! files.

use std::{fmt::Write, path::PathBuf};

use openelm_core::one_line;
use serde_json::json;

use crate::{
    error::Error,
    hub::{Cache, CachedRepository, Environment, RepoType, damaged, list},
    output,
};

/// Arguments of `openelm models`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  openelm models\n  openelm models --verify")]
pub(crate) struct Args {
    /// Compare the files with their hashes; a missing or damaged file is an error
    #[arg(long)]
    verify: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let cache = Cache::new(&Environment::read()?.cache);
    let found = list(&cache);
    let mut all_damaged = Vec::new();
    let mut repositories = Vec::new();
    for repository in &found {
        let mut object = to_json(repository);
        if args.verify {
            let paths = damaged(repository)?;
            object["damaged"] = json!(paths);
            all_damaged.extend(paths.into_iter().map(|path| (repository, path)));
        }
        repositories.push(object);
    }
    if args.json {
        output::write_json(&json!({ "cache": cache.root(), "repositories": repositories }))?;
    } else if found.is_empty() {
        output::note(&format!("no repositories in {}", cache.root().display()));
    } else {
        output::write(table(&found).as_bytes())?;
    }
    refuse(&all_damaged)
}

/// The error of damaged files, which names the first one.
fn refuse(damaged: &[(&CachedRepository, PathBuf)]) -> Result<(), Error> {
    let Some((repository, path)) = damaged.first() else {
        return Ok(());
    };
    let more = match damaged.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more)"),
    };
    let CachedRepository { id, commit, .. } = repository;
    let kind = match repository.kind {
        RepoType::Model => "",
        RepoType::Dataset => " --repo-type dataset",
    };
    let problem = format!(
        "the file is missing, or its bytes do not have the hash in its name; delete it and download \
         it again: openelm pull {id}@{commit}{kind}{more}"
    );
    Err(Error::HubCache {
        path: path.display().to_string(),
        problem,
    })
}

fn to_json(found: &CachedRepository) -> serde_json::Value {
    json!({
        "name": found.id,
        "type": found.kind.to_string(),
        "revisions": found.revisions,
        "commit": found.commit,
        "files": found.files,
        "bytes": found.bytes,
        "path": found.path,
    })
}

fn table(found: &[CachedRepository]) -> String {
    let revision = |found: &CachedRepository| {
        if found.revisions.is_empty() {
            found.commit.get(..7).unwrap_or_default().to_owned()
        } else {
            found.revisions.join(", ")
        }
    };
    let rows: Vec<[String; 5]> = found
        .iter()
        .map(|found| {
            [
                found.id.clone(),
                found.kind.to_string(),
                revision(found),
                output::bytes(found.bytes),
                one_line(&found.path.display().to_string()),
            ]
        })
        .collect();
    let header = ["name", "type", "revision", "size", "path"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows
            .iter()
            .chain([&header])
            .filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for row in [&header].into_iter().chain(&rows) {
        let [name, kind, revision, size, path] = row;
        let [a, b, c, d] = widths;
        let _ = writeln!(
            text,
            "{name:a$}  {kind:b$}  {revision:c$}  {size:>d$}  {path}"
        );
    }
    text
}
