//! Training configurations of CoreNet and of the Alignment Handbook (YAML), as the settings of a
//! TOML file.
//!
//! Every key of such a file is a setting here, or must have the only value that this tool has, or is
//! in a list of keys without effect, which are named in a note. Another key is an error.

mod instruction_tuning;
mod keys;
mod peft;
mod pretraining;
mod sections;

use std::path::Path;

use openelm_core::{
    Config,
    config::Preset,
    text::{MAX_SETTINGS, read_text_file},
};
use toml::Table;

use crate::{error::Error, output};
use keys::Keys;

/// The settings of a YAML file.
#[derive(Debug)]
pub(crate) struct CoreNetSettings {
    /// The settings by the names of a TOML file.
    pub(crate) table: Table,
    /// Values that the file does not have and keys without effect.
    notes: Vec<String>,
    /// The size of the model in the file, for fine-tuning.
    preset: Option<Preset>,
}

/// The settings of pre-training in `file`; `None` if it is no YAML file.
///
/// # Errors
/// [`Error::Settings`] if the file cannot be read, [`Error::Usage`] if it is another
/// configuration or has an unknown key.
pub(crate) fn of_pretraining(file: Option<&Path>) -> Result<Option<CoreNetSettings>, Error> {
    read(file, pretraining::settings)
}

/// The settings of fine-tuning in `file`; `None` if it is no YAML file.
///
/// # Errors
/// As [`of_pretraining`].
pub(crate) fn of_finetuning(file: Option<&Path>) -> Result<Option<CoreNetSettings>, Error> {
    read(file, |keys| {
        if instruction_tuning::is_recipe(&keys) {
            instruction_tuning::settings(keys)
        } else {
            peft::settings(keys)
        }
    })
}

/// Reads `file` with `translate`.
fn read(
    file: Option<&Path>,
    translate: impl FnOnce(Keys) -> Result<CoreNetSettings, String>,
) -> Result<Option<CoreNetSettings>, Error> {
    let Some(file) = file.filter(|file| is_yaml(file)) else {
        return Ok(None);
    };
    let text = read_text_file(file, MAX_SETTINGS).map_err(|error| Error::Settings {
        place: file.display().to_string(),
        problem: error.to_string(),
    })?;
    let settings = Keys::read(&text).and_then(translate);
    settings
        .map(Some)
        .map_err(|problem| Error::Usage(format!("{}: {problem}", file.display())))
}

/// True for the name of a YAML file.
fn is_yaml(file: &Path) -> bool {
    let ending = file.extension().unwrap_or_default();
    ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml")
}

impl CoreNetSettings {
    /// Prints the notes.
    pub(crate) fn show(&self, file: Option<&Path>) {
        let name = file.and_then(Path::file_name).unwrap_or_default();
        for note in &self.notes {
            output::note(&format!("{}: {note}", name.display()));
        }
    }

    /// Refuses a model of another size than the file's.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(crate) fn check_model(&self, file: Option<&Path>, config: &Config) -> Result<(), Error> {
        let Some(preset) = self.preset else {
            return Ok(());
        };
        let expected = preset.config();
        let is_it = expected.layers() == config.layers()
            && expected.model_dim() == config.model_dim()
            && expected.head_dim() == config.head_dim();
        if is_it {
            return Ok(());
        }
        let file = file.unwrap_or(Path::new("")).display();
        Err(Error::Usage(format!(
            "{file}: model.language_modeling.general_gpt.model_name: expected the size of --model, \
             found {}",
            preset.name()
        )))
    }
}
