//! What a run learns from, and what it is tried on.

use std::{fs, path::Path};

use openelm_core::{
    Config, Tokenizer,
    pretrain::{MemorySource, Sequence, Source, Validation},
};

use super::settings::Settings;
use crate::error::Error;

/// Tokens of a sequence.
pub(super) fn sequence_length(settings: &Settings, config: &Config) -> usize {
    let length = settings.sequence_length;
    length.unwrap_or(config.max_context_length())
}

/// The training data, as the process `place` of a group gets it.
pub(super) fn source(
    settings: &Settings,
    config: &Config,
    tokenizer: &Tokenizer,
    place: (usize, usize),
) -> Result<Box<dyn Source>, Error> {
    let Some(files) = &settings.data else {
        return Err(Error::Usage("no data; give --data FILES".into()));
    };
    let length = sequence_length(settings, config);
    let mut stream: Vec<u32> = Vec::new();
    let mut starts = Vec::new();
    for file in files {
        for text in texts(file)? {
            starts.push(stream.len());
            stream.extend(tokenizer.encode_prompt(&text)?);
            stream.push(tokenizer.eos_id());
        }
    }
    let mut sequences = Vec::new();
    for start in (0..stream.len().saturating_sub(length)).step_by(length) {
        let end = start + length + 1;
        let (a, b) = (
            starts.partition_point(|&s| s < start),
            starts.partition_point(|&s| s < end),
        );
        sequences.push(Sequence {
            tokens: stream[start..end].to_vec(),
            document_starts: starts[a..b].iter().map(|s| s - start).collect(),
        });
    }
    // Fisher-Yates by a 64-bit LCG.
    let mut state = settings.seed.unwrap_or(0) ^ 0x9e37_79b9_7f4a_7c15;
    for i in (1..sequences.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        sequences.swap(i, (state >> 33) as usize % (i + 1));
    }
    Ok(Box::new(MemorySource::new(sequences, place)))
}

/// The held-out texts.
pub(super) fn validation(
    settings: &Settings,
    config: &Config,
    tokenizer: &Tokenizer,
) -> Result<Option<Validation>, Error> {
    let Some(files) = &settings.valid else {
        return Ok(None);
    };
    let mut all = Vec::new();
    for file in files {
        all.extend(texts(file)?);
    }
    let length = sequence_length(settings, config);
    Ok(Some(Validation::new(all, tokenizer, length)?))
}

fn texts(file: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(file).map_err(|error| Error::Settings {
        place: file.display().to_string(),
        problem: error.to_string(),
    })?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(lines
        .filter_map(|line| Some(line.get("text")?.as_str()?.to_owned()))
        .collect())
}
