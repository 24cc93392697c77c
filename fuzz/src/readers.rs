//! The properties that fuzzing checks: any bytes are read or rejected, in bounded memory, and an
//! accepted file can be read to its end. Shared by the fuzz targets and openelm-core's tests.

use openelm_core::{
    Config,
    internal::{self as gguf, TorchFile},
    pretrain::CoreNetCheckpoint,
    weights::Checkpoint,
};
use openelm_testing::TempFile;

/// Reads `bytes` as a PyTorch checkpoint.
pub(crate) fn torch(bytes: &[u8]) {
    let file = TempFile::in_memory("weights.pt", bytes);
    for ema in [false, true] {
        let Ok(opened) = TorchFile::open_with(&file, ema) else {
            continue;
        };
        for (name, tensor) in opened.tensors() {
            if let Ok(read) = opened.read(name) {
                assert_eq!(read.len(), tensor.bytes(), "{name}");
            }
        }
    }
    // The optimizer's state.
    if let Ok(checkpoint) = CoreNetCheckpoint::open(&file) {
        let _ = checkpoint.vocab_size();
    }
}

/// Reads `bytes` as a GGUF file.
pub(crate) fn gguf(bytes: &[u8]) {
    let file = TempFile::in_memory("model.gguf", bytes);
    let Ok(mut reader) = gguf::GgufReader::open(&file) else {
        return;
    };
    if let Ok(config) = gguf::config_from_gguf(&reader) {
        let _ = gguf::check_tensors(&reader, &config);
    }
    if let Ok(Some(vocabulary)) = gguf::Vocabulary::from_gguf(&reader) {
        let _ = vocabulary.to_tokenizer_json();
    }
    let names: Vec<String> = reader.tensors().keys().cloned().collect();
    for name in names {
        let _ = reader.read(&name);
    }
}

/// Reads `bytes` as a model's safetensors file.
pub(crate) fn safetensors(bytes: &[u8]) {
    let file = TempFile::in_memory("model.safetensors", bytes);
    let Some(folder) = file.parent() else {
        return;
    };
    let Ok(checkpoint) = Checkpoint::open(folder) else {
        return;
    };
    assert!(checkpoint.bytes() <= bytes.len());
    let _ = checkpoint.dtype();
    if let Ok(config) = Config::from_json(CONFIG, "config.json") {
        let _ = checkpoint.check(&config);
    }
}

/// The config.json of the seed.
const CONFIG: &str = include_str!("../seeds/safetensors/config.json");
