//! Inputs and outputs of a command: no input is inside its output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::paths::real;
use crate::error::{Error, Result};

/// Refuses an output that is an input, or a folder that contains one. An input is a path or a glob
/// pattern, with its name for the error; links are followed. A missing input is ignored: its reader
/// reports it.
///
/// # Errors
/// [`Error::Destination`] with the input, [`Error::Io`].
pub fn check_inputs<'a>(
    output: impl AsRef<Path>,
    inputs: impl IntoIterator<Item = (&'a str, &'a Path)>,
) -> Result<()> {
    let output = output.as_ref();
    let place = real(output)?;
    for (name, given) in inputs {
        for input in matches(given) {
            let Some(problem) = overlap(&place, &input) else {
                continue;
            };
            return Err(Error::destination(
                output,
                format!(
                    "{problem} ({name} {}); choose another path",
                    given.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses an output folder inside a folder that is read with its subfolders: the output would
/// become data. `data` has paths and glob patterns.
///
/// # Errors
/// [`Error::Destination`] with the folder, [`Error::Io`].
pub fn check_outside_data<'a>(
    output: impl AsRef<Path>,
    data: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let output = output.as_ref();
    let place = real(output)?;
    for given in data {
        let reads = matches(given).into_iter().any(|folder| {
            let inside = fs::canonicalize(folder).ok();
            let inside = inside.and_then(|folder| place.strip_prefix(folder).ok());
            // Hidden names are not read.
            inside.is_some_and(|inside| !inside.iter().any(is_hidden))
        });
        if reads || matches_later(given, &place) {
            return Err(Error::destination(
                output,
                format!(
                    "is inside the data {}, which is read with its subfolders: the output would \
                     become data; choose another path",
                    given.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The overlap of the absolute path `output` with `input` or, of a repository in the Hugging Face
/// Hub cache, with the snapshots in it.
fn overlap(output: &Path, input: &Path) -> Option<&'static str> {
    let snapshots = fs::read_dir(input.join("snapshots"));
    let snapshots = snapshots.into_iter().flatten().filter_map(Result::ok);
    let mut inputs = std::iter::once(input.to_path_buf()).chain(snapshots.map(|s| s.path()));
    inputs.find_map(|input| overlap_of_one(output, &input))
}

fn overlap_of_one(output: &Path, input: &Path) -> Option<&'static str> {
    let place = fs::canonicalize(input).ok()?;
    if place == output {
        return Some("is an input of this command");
    }
    if place.starts_with(output) {
        return Some("contains an input of this command");
    }
    if output.is_file() && output.starts_with(&place) {
        return Some("is a file of an input of this command");
    }
    // Files of an input folder may be links, as in the Hugging Face Hub cache.
    let mut entries = fs::read_dir(&place).ok()?.filter_map(Result::ok);
    let links = entries.any(|entry| {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let file = fs::canonicalize(entry.path()).ok();
        is_link && file.is_some_and(|file| file.is_file() && file.starts_with(output))
    });
    links.then_some("contains files of an input of this command")
}

/// The existing paths of a path or pattern.
fn matches(given: &Path) -> Vec<PathBuf> {
    if given.exists() {
        return vec![given.to_path_buf()];
    }
    let found = given.to_str().and_then(|pattern| glob::glob(pattern).ok());
    found.into_iter().flatten().filter_map(Result::ok).collect()
}

/// True if the pattern `given` matches `output` or a folder that contains it, once they exist.
fn matches_later(given: &Path, output: &Path) -> bool {
    let is_pattern = !given.exists() && given.to_string_lossy().contains(['*', '?', '[']);
    let absolute = std::path::absolute(given).ok();
    let pattern = absolute.and_then(|given| glob::Pattern::new(given.to_str()?).ok());
    let Some(pattern) = pattern.filter(|_| is_pattern) else {
        return false;
    };
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let mut places = output.ancestors();
    places.any(|place| pattern.matches_path_with(place, options))
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn output_contains_no_input() {
        let folder = TempDir::new();
        folder.write("run/adapters/adapters.safetensors", "");
        folder.write("data/train.jsonl", "");
        let check = |output: &str, input: &str| {
            let (output, input) = (folder.join(output), folder.join(input));
            check_inputs(output, [("adapter", &*input)]).map_err(|error| error.to_string())
        };
        for (output, input, problem) in [
            ("run", "run/adapters", "contains an input"),
            (
                "run/",
                "run/../run/adapters/adapters.safetensors",
                "contains an input",
            ),
            ("run/x/..", "run/adapters", "contains an input"),
            ("run/adapters", "run/adapters", "is an input"),
            (
                "run/adapters/adapters.safetensors",
                "run/adapters",
                "is a file of an input",
            ),
            ("data", "data/*.jsonl", "contains an input"),
            ("data", "dat[a]/train.jsonl", "contains an input"),
        ] {
            let error = check(output, input).unwrap_err();
            assert!(
                error.contains(problem) && error.contains("adapter "),
                "{output}: {error}"
            );
        }
        for (output, input) in [
            ("run/adapters/fused", "run/adapters"),
            ("data/run", "data"),
            ("run/adapters-2", "run/adapters"),
            ("run", "run/nowhere"),
            ("run", "data/*.jsonl"),
        ] {
            check(output, input).unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("run", folder.join("link")).unwrap();
            symlink("../run/adapters", folder.join("data/latest")).unwrap();
            fs::create_dir(folder.join("cache")).unwrap();
            let blob = "../run/adapters/adapters.safetensors";
            symlink(blob, folder.join("cache/adapters.safetensors")).unwrap();
            check("link", "run/adapters").unwrap_err();
            check("run", "link/adapters").unwrap_err();
            check("run", "data/latest").unwrap_err();
            let error = check("run", "cache").unwrap_err();
            assert!(error.contains("contains files of an input"), "{error}");
            check("run", "data").unwrap();

            folder.write("hub/models--a/blobs/7", "");
            fs::create_dir_all(folder.join("hub/models--a/snapshots/c")).unwrap();
            let file = folder.join("hub/models--a/snapshots/c/tokenizer.json");
            symlink("../../blobs/7", file).unwrap();
            for output in ["", "/snapshots", "/snapshots/c", "/blobs"] {
                let output = format!("hub/models--a{output}");
                let error = check(&output, "hub/models--a").unwrap_err();
                assert!(
                    error.contains(" input of this command"),
                    "{output}: {error}"
                );
            }
            check("hub/models--b", "hub/models--a").unwrap();
        }
    }

    #[test]
    fn output_does_not_become_data() {
        let folder = TempDir::new();
        folder.write("data/a/train.jsonl", "");
        let check = |output: &str, data: &str| {
            let (output, data) = (folder.join(output), folder.join(data));
            check_outside_data(output, [&*data]).map_err(|error| error.to_string())
        };
        for (output, data) in [
            ("data", "data"),
            ("data/run", "data"),
            ("data/a/b/run", "data/*"),
            ("data/run", "data/*"),
            ("other/../data/run", "data/./"),
        ] {
            let error = check(output, data).unwrap_err();
            assert!(error.contains("would become data"), "{error}");
        }
        for (output, data) in [
            ("data/.run", "data"),
            ("data-2", "data"),
            ("data/run", "data/a"),
            ("data/run", "data/a/train.jsonl"),
            ("data/run", "data/*.jsonl"),
            ("run", "*/a/*.jsonl"),
        ] {
            check(output, data).unwrap();
        }
    }
}
