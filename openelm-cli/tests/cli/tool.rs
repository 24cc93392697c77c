//! The tool with the bundled model and with models of zeros.

use std::{path::Path, process::Command};

use openelm_core::{Config, config::LayerWiseConfig};
use openelm_testing::TempDir;
use serde_json::Value;

/// The bundled model.
pub(crate) fn tales() -> String {
    openelm_testing::tales().to_str().unwrap().to_owned()
}

/// A folder with a model of zeros.
pub(crate) fn with_model(config: &Config) -> TempDir {
    let folder = TempDir::new();
    write_zeros(&folder, config);
    folder
}

/// Writes a model of zeros as a sparse file.
pub(crate) fn write_zeros(folder: &Path, config: &Config) {
    openelm_testing::write_zeros(folder, &config.to_json(), &config.tensors());
}

/// A small model with a vocabulary of `vocab_size`.
pub(crate) fn small(vocab_size: usize) -> Config {
    let settings = LayerWiseConfig {
        model_dim: 16,
        num_transformer_layers: 2,
        head_dim: 8,
        num_gqa_groups: Some(1),
        ffn_dim_divisor: 8,
        vocab_size,
        ..LayerWiseConfig::default()
    };
    Config::layer_wise(settings).unwrap()
}

pub(crate) fn openelm(args: &[&str]) -> Command {
    openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), args)
}

/// `openelm generate` with the bundled model.
pub(crate) fn generate(args: &[&str]) -> Command {
    let mut command = openelm(&["generate", "--model", &tales()]);
    command.args(args);
    command
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}
