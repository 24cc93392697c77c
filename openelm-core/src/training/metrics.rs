//! `metrics.jsonl`: one JSON object per line for every step and validation of a training run.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    files::write_beside,
};

/// The name of the file.
pub(crate) const METRICS_FILE: &str = "metrics.jsonl";

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

    /// Keeps the lines of the first `iteration` iterations and appends after them. The validation
    /// after `repeated` iterations is not kept.
    pub(crate) fn open(folder: &Path, iteration: u64, repeated: Option<u64>) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut kept = String::new();
        for line in text.lines().filter(|_| iteration > 0) {
            let parsed: Option<Value> = serde_json::from_str(line).ok();
            let value = |key| parsed.as_ref().and_then(|line| line.get(key));
            let of = value("iteration").and_then(Value::as_u64);
            let is_repeated = of == repeated && value("val_loss").is_some();
            // Drop a line cut by a crash, and lines of steps that will be repeated.
            if of.is_some_and(|of| of <= iteration) && !is_repeated {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        write_beside(&path, |partial| {
            fs::write(partial, &kept).map_err(Error::io(&path))
        })?;
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
