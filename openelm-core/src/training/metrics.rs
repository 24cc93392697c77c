//! `metrics.jsonl`: one JSON object per line for every step and validation of a training run.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    files::write_beside,
    text_file::for_each_line,
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
        write_beside(&path, |partial| {
            let file = File::create(partial).map_err(Error::io(&path))?;
            keep(&path, (iteration, repeated), BufWriter::new(file)).map_err(Error::io(&path))
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

/// Writes the lines of the first `iteration` iterations to `kept`, without the validation after
/// `repeated` iterations.
fn keep(
    path: &Path,
    (iteration, repeated): (u64, Option<u64>),
    mut kept: impl Write,
) -> io::Result<()> {
    if iteration == 0 || !path.exists() {
        return kept.flush();
    }
    let mut written = Ok(());
    for_each_line(path, |line| {
        let parsed: Option<Value> = serde_json::from_str(line).ok();
        let value = |key| parsed.as_ref().and_then(|line| line.get(key));
        let of = value("iteration").and_then(Value::as_u64);
        let is_repeated = of == repeated && value("val_loss").is_some();
        // Drop a line cut by a crash, and lines of steps that will be repeated.
        if written.is_ok() && of.is_some_and(|of| of <= iteration) && !is_repeated {
            written = writeln!(kept, "{line}");
        }
    })?;
    written.and_then(|()| kept.flush())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn keeps_the_lines_of_saved_iterations() {
        let scratch = TempDir::new();
        let lines = "\u{FEFF}{\"iteration\":1}\r\n{\"iteration\":2}\n{\"iteration\":3}\n{\"iter";
        for (iteration, expected) in [(0, ""), (2, "{\"iteration\":1}\n{\"iteration\":2}\n")] {
            let path = scratch.write("metrics.jsonl", lines);
            Metrics::open(&scratch, iteration, None).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
        fs::remove_file(scratch.join("metrics.jsonl")).unwrap();
        Metrics::open(&scratch, 2, None).unwrap();
        scratch.write("metrics.jsonl", vec![b'a'; 2 << 20]);
        let problem = Metrics::open(&scratch, 2, None).unwrap_err().to_string();
        assert!(
            problem.contains("metrics.jsonl: line 1: expected at most"),
            "{problem}"
        );
    }
}
