//! The files of a data set.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The files of a data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    /// To learn from: `train`.
    pub train: Option<PathBuf>,
    /// To measure on during training: `valid` or `val`.
    pub valid: Option<PathBuf>,
    /// To measure on at the end: `test`.
    pub test: Option<PathBuf>,
}

impl DataFolder {
    /// Looks into a folder for `train`, `valid` (or `val`) and `test` with the ending `.jsonl`
    /// or `.txt`; a file of such an ending is a `train` alone.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`] if there is no such folder or file, or none of the names in it;
    /// [`Error::Data`] if two files claim the same part, or a file has another ending.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::search(path);
        }
        if !path.exists() {
            return Err(Error::missing_file(path, "no such file or folder"));
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
                "no `train`, `valid` or `test` with the ending `.jsonl` or `.txt`",
            ));
        }
        Ok(found)
    }
}

/// The format of a file by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Jsonl,
    Text,
}

impl FileFormat {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default();
        if ending.eq_ignore_ascii_case("jsonl") {
            Ok(Self::Jsonl)
        } else if ending.eq_ignore_ascii_case("txt") {
            Ok(Self::Text)
        } else {
            Err(Error::data(
                path,
                None,
                "expected a file with the ending `.jsonl` or `.txt`",
            ))
        }
    }
}

fn find(folder: &Path, stems: &[&str]) -> Result<Option<PathBuf>> {
    let mut files = stems
        .iter()
        .flat_map(|stem| [format!("{stem}.jsonl"), format!("{stem}.txt")])
        .map(|name| folder.join(name))
        .filter(|file| file.is_file());
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
