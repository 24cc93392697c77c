//! The tool, run as a user runs it, and folders for it.

use std::{
    fs,
    io::Write,
    ops::Deref,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use openelm_core::{Config, config::LayerWiseConfig};
use serde_json::{Value, json};

/// The bundled model.
pub(crate) fn tales() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openelm-core/tests/fixtures/tales");
    path.to_str().unwrap().to_owned()
}

/// A folder that goes when its test ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openelm-cli-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With a model of zeros in it.
    pub(crate) fn with_model(name: &str, config: &Config) -> Self {
        let folder = Self::new(name);
        write_zeros(&folder, config);
        folder
    }

    /// The path of a file in it, which is written.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn name(&self) -> &str {
        self.to_str().unwrap()
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a model of zeros, which take no space on the disk.
pub(crate) fn write_zeros(folder: &Path, config: &Config) {
    fs::write(folder.join("config.json"), config.to_json()).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in config.tensors() {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let tensor = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(name, tensor);
    }
    let header = Value::Object(header).to_string();
    let mut file = fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// A small model of `vocab_size` tokens.
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.args(args).stdin(Stdio::null());
    command
}

/// `openelm generate` with the bundled model.
pub(crate) fn generate(args: &[&str]) -> Command {
    let mut command = openelm(&["generate", "--model", &tales()]);
    command.args(args);
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

/// Runs a command that has to work and returns its stdout.
#[track_caller]
pub(crate) fn works(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

/// Runs a command that has to fail with one line on stderr and nothing on stdout.
#[track_caller]
pub(crate) fn fails(command: Command, code: i32, parts: &[&str]) {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    assert_one_line(&outcome.stderr, parts);
}

#[track_caller]
pub(crate) fn assert_one_line(stderr: &str, parts: &[&str]) {
    assert!(stderr.starts_with("openelm: "), "{stderr}");
    assert!(
        stderr.ends_with('\n') && stderr.lines().count() == 1,
        "{stderr}"
    );
    for part in parts {
        assert!(stderr.contains(part), "{part} | {stderr}");
    }
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}
