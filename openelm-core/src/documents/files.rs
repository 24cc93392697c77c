//! The files of a corpus: files, folders and patterns, expanded and sorted.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    lookup::{PathKind, path_kind},
};

/// A format of documents, for files whose extension is of no format or of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// One JSON object per line.
    Jsonl,
    /// One document.
    Txt,
    /// A column of strings.
    Parquet,
}

/// The format of a file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object per line.
    JsonLines(Packing),
    /// One document.
    Text(Packing),
    /// A column of strings.
    Parquet,
}

/// The compression of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// The supported extensions, as listed in errors.
pub(crate) const ENDINGS: &str =
    ".jsonl, .json and .txt (each also with .gz or .zst), .zst, or .parquet";

impl Format {
    /// The format of `path`, if it is `given`, with the compression of the extension; else by the
    /// extension. `None` if the extension is not one of [`ENDINGS`], or a Parquet file's is of a
    /// compressed file.
    pub(crate) fn of(path: &Path, given: Option<FileFormat>) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (stem, packing) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Packing::Gzip),
            Some((stem, "zst")) => (stem, Packing::Zstd),
            _ => (name.as_str(), Packing::None),
        };
        if let Some(given) = given {
            return match given {
                FileFormat::Jsonl => Some(Self::JsonLines(packing)),
                FileFormat::Txt => Some(Self::Text(packing)),
                FileFormat::Parquet => (packing == Packing::None).then_some(Self::Parquet),
            };
        }
        match stem.rsplit_once('.').map(|(_, ending)| ending) {
            Some("jsonl" | "json") => Some(Self::JsonLines(packing)),
            Some("txt") => Some(Self::Text(packing)),
            Some("parquet") if packing == Packing::None => Some(Self::Parquet),
            // The Pile and similar data sets name their shards `00.zst`, lines of JSON.
            _ if packing == Packing::Zstd => Some(Self::JsonLines(packing)),
            _ => None,
        }
    }
}

/// The files of `places`, sorted by path and each once. A folder gives its files with a supported
/// extension, including subfolders; names that begin with a dot are skipped.
///
/// # Errors
///
/// [`Error::MissingFile`] if a place does not exist or a pattern matches nothing; [`Error::Data`]
/// if a file has another extension, or a folder has no supported file; [`Error::Io`].
pub(crate) fn expand(places: &[PathBuf]) -> Result<Vec<PathBuf>> {
    expand_as(places, None)
}

/// Like [`expand`]; with a format given, a file may have any extension.
///
/// # Errors
///
/// As [`expand`].
pub(crate) fn expand_as(places: &[PathBuf], format: Option<FileFormat>) -> Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for place in places {
        let before = files.len();
        match path_kind(place)? {
            Some(PathKind::Folder) => {
                search(place, format, &mut files)?;
                if files.len() == before && !already(place, &files) {
                    return Err(Error::data(
                        place,
                        None,
                        format!("no file with an ending of {ENDINGS}"),
                    ));
                }
            }
            Some(_) => add(place, format, &mut files)?,
            None => matches(place, format, &mut files)?,
        }
    }
    if files.is_empty() {
        return Err(Error::option(
            "files",
            "expected at least one file, folder or pattern, found none",
        ));
    }
    Ok(files.into_iter().collect())
}

/// True if another place includes the folder's files.
fn already(folder: &Path, files: &BTreeSet<PathBuf>) -> bool {
    files.iter().any(|file| file.starts_with(folder))
}

fn search(folder: &Path, format: Option<FileFormat>, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            search(&path, format, files)?;
        } else if Format::of(&path, format).is_some() && (format.is_some() || !is_plain_json(&path))
        {
            files.insert(path);
        }
    }
    Ok(())
}

/// True for a name that ends in `.json`. In a folder this is a configuration or an index; a file of
/// rows is named itself, or is compressed, as in C4.
fn is_plain_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
}

fn add(path: &Path, format: Option<FileFormat>, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if Format::of(path, format).is_none() {
        return Err(Error::data(
            path,
            None,
            format!("expected an ending of {ENDINGS}"),
        ));
    }
    files.insert(path.to_owned());
    Ok(())
}

fn matches(
    pattern: &Path,
    format: Option<FileFormat>,
    files: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    let missing = |problem: &str| Error::missing_file(pattern, problem);
    let text = pattern
        .to_str()
        .filter(|text| text.contains(['*', '?', '[']))
        .ok_or_else(|| missing("no such file or folder"))?;
    let text = with_literal_folder(text);
    let found = glob::glob(&text).map_err(|error| missing(&format!("a bad pattern: {error}")))?;
    let mut any = false;
    for path in found {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            Error::io(path)(error.into())
        })?;
        any = true;
        if path.is_dir() {
            search(&path, format, files)?;
        } else {
            add(&path, format, files)?;
        }
    }
    if any {
        return Ok(());
    }
    Err(missing("no file matches this pattern"))
}

/// `pattern` with its longest existing folder as literal text: `[` and `*` in it are characters of
/// names.
fn with_literal_folder(pattern: &str) -> String {
    let ends = pattern.rmatch_indices('/').map(|(at, _)| at);
    for end in ends {
        let (folder, rest) = pattern.split_at(end);
        if Path::new(folder).is_dir() {
            return glob::Pattern::escape(folder) + rest;
        }
    }
    pattern.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn extension_selects_the_reader() {
        let lines = Format::JsonLines;
        for (name, format) in [
            ("a.jsonl", Some(lines(Packing::None))),
            ("a.JSON.GZ", Some(lines(Packing::Gzip))),
            ("a.jsonl.gz", Some(lines(Packing::Gzip))),
            ("a.b.jsonl.zst", Some(lines(Packing::Zstd))),
            ("00.zst", Some(lines(Packing::Zstd))),
            ("a.txt", Some(Format::Text(Packing::None))),
            ("a.txt.zst", Some(Format::Text(Packing::Zstd))),
            ("a.parquet", Some(Format::Parquet)),
            ("a.parquet.gz", None),
            ("rows.json", Some(lines(Packing::None))),
            ("a.gz", None),
            ("a.csv", None),
            ("jsonl", None),
        ] {
            assert_eq!(Format::of(Path::new(name), None), format, "{name}");
        }
        for (name, given, format) in [
            ("a", FileFormat::Txt, Some(Format::Text(Packing::None))),
            ("a.csv.gz", FileFormat::Jsonl, Some(lines(Packing::Gzip))),
            ("a.jsonl", FileFormat::Parquet, Some(Format::Parquet)),
            ("a.parquet.zst", FileFormat::Parquet, None),
        ] {
            assert_eq!(Format::of(Path::new(name), Some(given)), format, "{name}");
        }
    }

    #[test]
    fn files_are_sorted_and_unique() {
        let scratch = TempDir::new();
        for name in [
            "b.jsonl",
            "a/x.txt",
            "a/y.md",
            "a/.z.txt",
            "a/rows.json",
            "c10.txt",
            "c9.txt",
            "d[1]/x.txt",
            "d1/x.txt",
        ] {
            scratch.write(name, b"{}");
        }
        let names = |places: &[&str]| -> Vec<String> {
            let places: Vec<_> = places.iter().map(|place| scratch.join(place)).collect();
            expand(&places)
                .unwrap()
                .iter()
                .map(|path| {
                    let inside = path.strip_prefix(&scratch).unwrap();
                    inside.to_str().unwrap().to_owned()
                })
                .collect()
        };
        assert_eq!(
            names(&["c*.txt", "b.jsonl"]),
            ["b.jsonl", "c10.txt", "c9.txt"]
        );
        let all = [
            "a/x.txt",
            "b.jsonl",
            "c10.txt",
            "c9.txt",
            "d1/x.txt",
            "d[1]/x.txt",
        ];
        assert_eq!(names(&[""]), all);
        // A plain .json is read only by its name.
        assert_eq!(names(&["a/rows.json"]), ["a/rows.json"]);
        assert_eq!(names(&["a/r*"]), ["a/rows.json"]);
        // An existing folder is no pattern.
        assert_eq!(names(&["d[1]/*.txt"]), ["d[1]/x.txt"]);
        assert_eq!(names(&["d[1]"]), ["d[1]/x.txt"]);
        assert_eq!(names(&["d[12]/*.txt"]), ["d1/x.txt"]);
        assert_eq!(names(&["a", "a/x.txt", "a"]), ["a/x.txt"]);
    }

    #[test]
    fn rejects_paths_without_files() {
        let scratch = TempDir::new();
        scratch.write("a/y.md", b"");
        let problem = |places: &[PathBuf]| expand(places).unwrap_err().to_string();
        for (place, expected) in [
            ("none.jsonl", "none.jsonl: no such file or folder"),
            ("*.jsonl", "*.jsonl: no file matches this pattern"),
            ("a", "no file with an ending of .jsonl"),
            ("a/y.md", "y.md: expected an ending of .jsonl"),
            ("a/[", "a bad pattern"),
        ] {
            let problem = problem(&[scratch.join(place)]);
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
        assert!(problem(&[]).contains("files: expected at least one"));
    }
}
