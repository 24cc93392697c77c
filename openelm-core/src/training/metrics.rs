//! `metrics.jsonl`: one JSON object per line for every step and validation of a training run.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    files::write_file,
};

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    file: Option<File>,
}

impl Metrics {
    /// Writes nothing.
    pub(crate) fn none() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
        }
    }

    /// Keeps the lines of the first `iteration` iterations and appends after them.
    pub(crate) fn open(folder: &Path, iteration: u64) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut kept = String::new();
        for line in text.lines().filter(|_| iteration > 0) {
            let of: Option<Value> = serde_json::from_str(line).ok();
            let of = of.and_then(|line| line.get("iteration")?.as_u64());
            // Drop a line cut by a crash, and lines of steps that will be repeated.
            if of.is_some_and(|of| of <= iteration) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        write_file(&path, &kept)?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self {
            file: Some(file.map_err(Error::io(&path))?),
            path,
        })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, line: &Value) -> Result<()> {
        match &mut self.file {
            Some(file) => writeln!(file, "{line}").map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}
