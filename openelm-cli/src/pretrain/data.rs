//! Training and validation data of a run.

use openelm_core::{
    Config, Tokenizer,
    corpus::CorpusStatistics,
    pretrain::{CorpusSource, Validation},
};

use super::settings::Settings;
use crate::{error::Error, output, paths::Paths};

/// The training data of process `rank` of `world`.
pub(super) fn source(
    settings: &Settings,
    config: &Config,
    tokenizer: &Tokenizer,
    rank: usize,
    world: usize,
) -> Result<Box<CorpusSource>, Error> {
    let options = settings.corpus(settings.sequence_length(config), rank, world)?;
    let source = CorpusSource::open(options, tokenizer.clone(), settings.shuffle)?;
    Ok(Box::new(source))
}

/// The validation texts.
pub(super) fn validation(
    settings: &Settings,
    config: &Config,
    tokenizer: &Tokenizer,
) -> Result<Option<Validation>, Error> {
    let Some(files) = &settings.valid else {
        return Ok(None);
    };
    let length = settings.sequence_length(config);
    let read = Validation::read(
        &Paths::all(files),
        &settings.text_key,
        settings.clean_text,
        tokenizer,
        length,
    )?;
    Ok(Some(read))
}

/// Prints the numbers of documents that were read and left out; with `own_files`, by this process
/// alone.
pub(super) fn show(data: &CorpusStatistics, own_files: bool) {
    let mut line = format!(
        "{}read {} documents in {} fragments, {} tokens in {} sequences",
        if own_files { "process 0 " } else { "" },
        output::grouped(data.documents),
        output::grouped(data.fragments),
        output::grouped(data.tokens),
        output::grouped(data.sequences),
    );
    for (count, what) in [
        (
            data.dropped_by_characters,
            "fragments with too few characters",
        ),
        (data.dropped_by_tokens, "fragments with too few tokens"),
        (data.truncated_tokens, "tokens truncated"),
        (data.pads, "pads"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", output::grouped(count)));
        }
    }
    output::note(&line);
    for file in &data.corrupt {
        output::note(&format!(
            "{}: {} left out: {}",
            file.path,
            output::grouped(file.count),
            file.problem
        ));
    }
}
