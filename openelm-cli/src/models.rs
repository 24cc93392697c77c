//! `openelm models`: lists the repositories in the cache of the Hugging Face Hub.

use std::fmt::Write;

use openelm_core::one_line;
use serde_json::json;

use crate::{
    error::Error,
    hub::{Cache, CachedRepository, Environment, list},
    output,
};

/// Arguments of `openelm models`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  openelm models\n  openelm models --json")]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let cache = Cache::new(&Environment::read()?.cache);
    let found = list(&cache);
    if args.json {
        let repositories: Vec<_> = found.iter().map(to_json).collect();
        return output::write_json(&json!({
            "cache": cache.root(),
            "repositories": repositories,
        }));
    }
    if found.is_empty() {
        output::note(&format!("no repositories in {}", cache.root().display()));
        return Ok(());
    }
    output::write(table(&found).as_bytes())
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
