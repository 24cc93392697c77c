//! A run's rows, and what is told about them.

use std::path::Path;

use openelm_core::{
    LanguageModel,
    dataset::{Counts, Dataset, DatasetOptions, LongRows, PreferenceDataset},
    finetune::{FinetuneOptions, TrainingData},
};

use super::settings::Settings;
use crate::{error::Error, output, settings::one_of};

/// Reads the rows of `file`, and unless `quiet` says how many there are.
pub(super) fn read(
    file: &Path,
    model: &LanguageModel,
    settings: &Settings,
    options: &FinetuneOptions,
    quiet: bool,
) -> Result<TrainingData, Error> {
    let long_rows = [("split", LongRows::Split), ("drop", LongRows::Drop)];
    let long_rows = one_of(
        "long-rows",
        settings.long_rows.as_deref().unwrap_or("split"),
        &long_rows,
    )?;
    let how = DatasetOptions {
        max_length: options.max_seq_length,
        mask_prompt: settings.mask_prompt,
        long_rows,
        mlx_lm_compat: options.mlx_lm_compat,
    };
    let (data, counts) = if settings.dpo.is_some() {
        let read = PreferenceDataset::read(file, model.tokenizer(), &how)?;
        (TrainingData::Pairs(read.pairs().to_vec()), read.counts())
    } else {
        let read = Dataset::read(file, model.tokenizer(), &how)?;
        (
            TrainingData::Examples(read.examples().to_vec()),
            read.counts(),
        )
    };
    if !quiet {
        tell_counts(file, counts);
    }
    Ok(data)
}

fn tell_counts(file: &Path, counts: Counts) {
    let grouped = |number: usize| output::grouped(number as u64);
    let mut line = format!(
        "{}: {} rows, {} targets of {} tokens",
        file.display(),
        grouped(counts.rows),
        grouped(counts.targets),
        grouped(counts.tokens),
    );
    for (count, what) in [
        (counts.split, "too long and split"),
        (counts.dropped, "dropped"),
        (counts.truncated, "to be cut"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", grouped(count)));
        }
    }
    output::tell(&line);
}
