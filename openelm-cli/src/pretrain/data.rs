//! Training and validation data of a run.

use openelm_core::{
    Config, Tokenizer,
    corpus::{Assembly, CorpusOptions, CorpusStatistics, Corrupt},
    pretrain::{CorpusSource, Validation},
};

use super::settings::Settings;
use crate::{error::Error, output, settings::one_of};

/// Tokens of a sequence.
pub(super) fn sequence_length(settings: &Settings, config: &Config) -> usize {
    let length = settings.sequence_length;
    length.unwrap_or(config.max_context_length())
}

/// The training data, as the process `rank` of `world` gets it.
pub(super) fn source(
    settings: &Settings,
    config: &Config,
    tokenizer: &Tokenizer,
    rank: usize,
    world: usize,
) -> Result<Box<CorpusSource>, Error> {
    let Some(files) = &settings.data else {
        return Err(Error::Usage("no data; give --data FILES".into()));
    };
    let assembly = settings.assembly.as_deref().unwrap_or("pack");
    let known = [("pack", Assembly::Pack), ("truncate", Assembly::Truncate)];
    let assembly = one_of("assembly", assembly, &known)?;
    let defaults = CorpusOptions::new(assembly);
    let options = CorpusOptions {
        files: files.clone(),
        text_key: settings.text_key.clone().unwrap_or(defaults.text_key),
        sequence_length: sequence_length(settings, config),
        words_per_fragment: settings
            .words_per_fragment
            .unwrap_or(defaults.words_per_fragment),
        min_characters: settings.min_characters.unwrap_or(defaults.min_characters),
        min_tokens: settings.min_tokens.unwrap_or(defaults.min_tokens),
        assembly,
        readers: settings.readers.unwrap_or(defaults.readers),
        rank,
        world,
        seed: settings.seed.unwrap_or(0),
        epochs: settings.epochs,
        on_corrupt: if settings.skip_corrupt {
            Corrupt::Skip
        } else {
            Corrupt::Stop
        },
    };
    let source = CorpusSource::open(options, tokenizer.clone(), settings.shuffle)?;
    Ok(Box::new(source))
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
    let key = settings.text_key.as_deref().unwrap_or("text");
    let length = sequence_length(settings, config);
    Ok(Some(Validation::read(files, key, tokenizer, length)?))
}

/// Reports the documents that were read, and those left out.
pub(super) fn tell(data: &CorpusStatistics) {
    let mut line = format!(
        "read {} documents in {} fragments, {} tokens in {} sequences",
        output::grouped(data.documents),
        output::grouped(data.fragments),
        output::grouped(data.tokens),
        output::grouped(data.sequences),
    );
    for (count, what) in [
        (
            data.dropped_by_characters,
            "fragments of too few characters",
        ),
        (data.dropped_by_tokens, "fragments of too few tokens"),
        (data.truncated_tokens, "tokens cut off"),
        (data.pads, "pads"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", output::grouped(count)));
        }
    }
    output::tell(&line);
    for file in &data.corrupt {
        output::tell(&format!(
            "{}: {} left out: {}",
            file.path,
            output::grouped(file.count),
            file.problem
        ));
    }
}
