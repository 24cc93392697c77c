//! The architecture of a checkpoint without a `config.json`: a released size by name, a
//! `config.json` from elsewhere, or CoreNet's YAML file.

use std::path::Path;

use serde::Deserialize;

use crate::{
    config::{CORENET_VOCAB, Config, LayerWiseConfig, Preset, VOCAB},
    error::{Error, Result},
    text_file,
};

/// Reads `270M`, `450M`, `1_1B`, `3B`, or the path of a `config.json` or of CoreNet's YAML training
/// configuration.
///
/// # Errors
/// [`Error::Option`] if it is neither a size nor a file, [`Error::Io`] if the file cannot be read,
/// and [`Error::Config`] naming the key at fault in it.
pub fn parse_architecture(name_or_path: &str) -> Result<Config> {
    let path = Path::new(name_or_path);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => from_yaml(path),
        Some("json") => Config::load(path),
        _ if path.is_dir() => Config::load(path),
        _ => match name_or_path.parse::<Preset>() {
            Ok(preset) => Ok(preset.config()),
            Err(_) => Err(Error::option(
                "architecture",
                format!(
                    "expected 270M, 450M, 1_1B, 3B, a config.json or a .yaml file, found \
                     {name_or_path:?}"
                ),
            )),
        },
    }
}

/// The model section of CoreNet's training configuration.
#[derive(Deserialize)]
struct Yaml {
    model: YamlModel,
}

#[derive(Deserialize)]
struct YamlModel {
    language_modeling: LanguageModeling,
}

#[derive(Deserialize)]
struct LanguageModeling {
    general_gpt: GeneralGpt,
}

#[derive(Deserialize)]
struct GeneralGpt {
    model_name: String,
    #[serde(default)]
    vocab_size: Option<usize>,
    #[serde(default)]
    max_context_length: Option<usize>,
}

/// Largest YAML file in bytes.
const MAX_YAML: u64 = 1 << 20;

fn from_yaml(path: &Path) -> Result<Config> {
    const KEY: &str = "model.language_modeling.general_gpt";
    let fault = |problem: String| Error::config(path, KEY, problem);
    let text = text_file::read(path, MAX_YAML, fault)?;
    let yaml: Yaml = serde_saphyr::from_str(&text).map_err(|error| {
        let problem = error.to_string();
        fault(problem.lines().next().unwrap_or("malformed").to_owned())
    })?;
    let GeneralGpt {
        model_name,
        vocab_size,
        max_context_length,
    } = yaml.model.language_modeling.general_gpt;
    let preset: Preset = model_name
        .parse()
        .map_err(|error: Error| fault(format!("`model_name`: {error}")))?;
    let settings = preset.settings();
    let rows = vocab_size.unwrap_or(CORENET_VOCAB);
    Config::layer_wise(LayerWiseConfig {
        vocab_size: if rows == CORENET_VOCAB { VOCAB } else { rows },
        max_context_length: max_context_length.unwrap_or(settings.max_context_length),
        ..settings
    })
    .map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempFile;

    /// A file as in CoreNet's projects/openelm, with anchors and unused keys.
    const YAML: &str = "\
taskname: '+ OpenELM'
common:
  vocab: &vocab_size 32128
  pad: &padding_index 32000
model:
  language_modeling:
    name: \"general_gpt\"
    general_gpt:
      model_name: \"OpenELM-450M\"
      vocab_size: *vocab_size
      max_context_length: 2048
      padding_index: *padding_index
optim: {name: adamw}
";

    fn read(text: &str) -> Result<Config> {
        let file = TempFile::new("openelm.yaml", text);
        parse_architecture(file.to_str().unwrap())
    }

    #[test]
    fn reads_corenet_yaml() {
        let config = read(YAML).unwrap();
        assert_eq!(config.parameter_count(), 457_179_136);
        let larger = read(&YAML.replace("32128", "40000")).unwrap();
        assert_eq!(larger.vocab_size(), 40_000);
    }

    #[test]
    fn rejects_malformed_yaml() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        let none = message("model: {}\n");
        assert!(none.contains("language_modeling"), "{none}");
        let unknown = message(&YAML.replace("450M", "7B"));
        assert!(
            unknown.contains("`model_name`") && unknown.contains("7B"),
            "{unknown}"
        );
        message("model: [");
        message(&"a: &a [1,1]\nb: &b [*a,*a]\n".repeat(40));
    }

    #[test]
    fn parses_preset_names() {
        assert_eq!(
            parse_architecture("1.1B").unwrap().parameter_count(),
            1_079_891_456
        );
        let message = parse_architecture("7B").unwrap_err().to_string();
        assert!(
            message.starts_with("architecture: expected 270M"),
            "{message}"
        );
    }
}
