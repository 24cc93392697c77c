//! `metrics.jsonl`: one JSON object a line for every step and validation.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::FinetuneEvent;
use crate::{
    error::{Error, Result},
    tensor_file,
};

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Metrics {
    path: PathBuf,
    file: Option<File>,
}

impl Metrics {
    /// Writes nothing.
    pub(super) fn none() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
        }
    }

    /// Keeps the lines of the first `iteration` iterations, and goes on after them.
    pub(super) fn open(folder: &Path, iteration: u64) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut kept = String::new();
        for line in text.lines().filter(|_| iteration > 0) {
            let of: Option<Value> = serde_json::from_str(line).ok();
            let of = of.and_then(|line| line.get("iteration")?.as_u64());
            // A line cut by a crash, and those of steps that are taken again, are left out.
            if of.is_some_and(|of| of <= iteration) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        tensor_file::write_beside(&path, |partial| {
            fs::write(partial, &kept).map_err(Error::io(&path))
        })?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self {
            file: Some(file.map_err(Error::io(&path))?),
            path,
        })
    }

    /// Writes a step or a validation.
    pub(super) fn write(&mut self, event: &FinetuneEvent) -> Result<()> {
        let line = match event {
            FinetuneEvent::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => json!({
                "iteration": step.iteration,
                "train_loss": step.loss,
                "targets": step.targets,
                "learning_rate": step.learning_rate,
                "gradient_norm": step.gradient_norm,
                "tokens_per_second": tokens_per_second,
                "trained_tokens": trained_tokens,
                "peak_memory": peak_bytes,
            }),
            FinetuneEvent::Validation {
                iteration,
                loss,
                perplexity,
                best,
            } => json!({
                "iteration": iteration,
                "val_loss": loss,
                "perplexity": perplexity,
                "best": best,
            }),
            _ => return Ok(()),
        };
        match &mut self.file {
            Some(file) => writeln!(file, "{line}").map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}
