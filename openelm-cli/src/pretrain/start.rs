//! CoreNet's files as the start of a run.

use std::path::Path;

use openelm_core::{Config, Tokenizer, pretrain::CoreNetCheckpoint};

use super::{architecture::Architecture, settings::Settings};
use crate::{error::Error, output};

/// The architecture of the CoreNet file `file`: `given`, with the file's rows of the embedding
/// unless their number is given too, or the released size of these shapes.
pub(super) fn architecture(
    file: &Path,
    given: &Architecture,
    tokenizer: &Tokenizer,
) -> Result<Config, Error> {
    let checkpoint = CoreNetCheckpoint::open(file)?;
    if *given == Architecture::default() {
        return Ok(checkpoint.architecture()?);
    }
    let mut config = given.layer_wise(tokenizer);
    if given.vocab_size.is_none() {
        config.vocab_size = checkpoint.vocab_size()?;
    }
    Ok(Config::layer_wise(config)?)
}

/// The training checkpoint of CoreNet to continue, and its iteration.
pub(super) fn continued(settings: &Settings) -> Result<Option<(CoreNetCheckpoint, u64)>, Error> {
    let start = settings.start_from.as_deref();
    let Some(file) = start.filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let checkpoint = CoreNetCheckpoint::open(file)?;
    let iteration = checkpoint.iteration();
    Ok(iteration.map(|iteration| (checkpoint, iteration)))
}

/// Prints the position of a training checkpoint that a new run continues.
pub(super) fn show(settings: &Settings) -> Result<(), Error> {
    let Some((checkpoint, iteration)) = continued(settings)? else {
        return Ok(());
    };
    let iteration = output::grouped(iteration);
    output::note(&format!(
        "continues after iteration {iteration} of the checkpoint, with its moments of AdamW"
    ));
    if checkpoint.has_average() && settings.ema_decay.is_none() {
        output::note("the checkpoint's moving average is left out; --ema-decay continues it");
    }
    Ok(())
}
