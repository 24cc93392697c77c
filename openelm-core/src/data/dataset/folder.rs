//! The files of a data set.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    lookup::{PathKind, first_file, path_kind},
};

/// The files of a data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    /// Training file: `train`.
    pub train: Option<PathBuf>,
    /// Validation file for use during training: `valid` or `val`.
    pub valid: Option<PathBuf>,
    /// Test file for use after training: `test`.
    pub test: Option<PathBuf>,
}

impl DataFolder {
    /// Finds `train`, `valid` (or `val`) and `test` with the extension `.jsonl`, `.json`
    /// (an array of rows) or `.txt` in a folder; a path of a file with such an extension is the training file.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`] if the folder or file does not exist or has none of these names;
    /// [`Error::Data`] if two files have the same purpose, or a file has another extension.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match path_kind(path)? {
            Some(PathKind::Folder) => return Self::search(path),
            Some(_) => {}
            None => return Err(Error::missing_file(path, "no such file or folder")),
        }
        FileFormat::of(path)?;
        Ok(Self {
            train: Some(path.to_owned()),
            valid: None,
            test: None,
        })
    }

    fn search(folder: &Path) -> Result<Self> {
        let found = Self {
            train: find(folder, &["train"])?,
            valid: find(folder, &["valid", "val"])?,
            test: find(folder, &["test"])?,
        };
        if [&found.train, &found.valid, &found.test]
            .iter()
            .all(|file| file.is_none())
        {
            return Err(Error::missing_file(
                folder,
                "no `train`, `valid` or `test` with the ending `.jsonl`, `.json` or `.txt`",
            ));
        }
        Ok(found)
    }
}

/// The format of a file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    /// A row per line.
    Jsonl,
    /// An array of rows.
    Json,
    /// One row.
    Text,
}

impl FileFormat {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default();
        if ending.eq_ignore_ascii_case("jsonl") {
            Ok(Self::Jsonl)
        } else if ending.eq_ignore_ascii_case("json") {
            Ok(Self::Json)
        } else if ending.eq_ignore_ascii_case("txt") {
            Ok(Self::Text)
        } else {
            Err(Error::data(
                path,
                None,
                "expected a file with the ending `.jsonl`, `.json` or `.txt`",
            ))
        }
    }
}

fn find(folder: &Path, stems: &[&str]) -> Result<Option<PathBuf>> {
    let names = stems
        .iter()
        .flat_map(|stem| ["jsonl", "json", "txt"].map(|ending| format!("{stem}.{ending}")));
    let mut files = Vec::new();
    for name in names {
        files.extend(first_file(folder, &[&name])?);
    }
    let mut files = files.into_iter();
    match (files.next(), files.next()) {
        (Some(first), Some(second)) => Err(Error::data(
            folder,
            None,
            format!(
                "`{}` and `{}` are for the same part; keep one of them",
                name(&first),
                name(&second)
            ),
        )),
        (file, _) => Ok(file),
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
