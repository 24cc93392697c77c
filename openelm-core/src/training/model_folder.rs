//! Model folders that training writes: a configuration, weights in one file, a tokenizer.

use std::path::{Path, PathBuf};

use crate::{
    config::Config,
    error::Result,
    files::{copy_synced, write_folder_beside, write_synced},
    mlx::Dtype,
    tokenizer::TOKENIZER_FILES,
    weights::{
        Checkpoint, PendingTensor, ReadOptions, Readers, Tensors, Weights, is_model_file, mean,
        tensor_file,
    },
};

/// The files of every model folder of a run, except the weights.
#[derive(Debug, Clone)]
pub(super) struct FolderTemplate {
    /// The text of `config.json`.
    config: String,
    /// Files to copy.
    tokenizer: Vec<PathBuf>,
    dtype: Dtype,
}

impl FolderTemplate {
    /// `tokenizer` is a tokenizer file or its folder; weights are stored in `dtype`.
    pub(super) fn new(config: &Config, tokenizer: Option<&Path>, dtype: Dtype) -> Self {
        let mut config = config.clone();
        let mut put = |key: &str, value: serde_json::Value| {
            _ = config.extra.entry(key).or_insert(value);
        };
        put("architectures", serde_json::json!(["OpenELMForCausalLM"]));
        let stored = serde_json::json!(dtype.to_string());
        config.extra.insert("torch_dtype".into(), stored);
        let tokenizer = match tokenizer {
            None => Vec::new(),
            Some(folder) if folder.is_dir() => {
                let files = TOKENIZER_FILES.iter().map(|name| folder.join(name));
                files.filter(|file| file.is_file()).collect()
            }
            Some(file) => {
                let beside = file.with_file_name("tokenizer_config.json");
                let files = [file.to_path_buf(), beside];
                files.into_iter().filter(|file| file.is_file()).collect()
            }
        };
        Self {
            config: config.to_json(),
            tokenizer,
            dtype,
        }
    }

    /// Writes the folder `target`; the model of an existing one is replaced after the new one is
    /// complete.
    pub(super) fn write(&self, target: &Path, weights: &[PendingTensor<'_>]) -> Result<()> {
        write_folder_beside(target, is_model_file, |folder| self.fill(folder, weights))
    }

    fn fill(&self, folder: &Path, weights: &[PendingTensor<'_>]) -> Result<()> {
        let dtype = self.dtype.mlx();
        let cast = weights.iter().map(|tensor| PendingTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype,
            make: Box::new(move || Ok((tensor.make)()?.as_dtype(dtype)?)),
        });
        let path = folder.join("model.safetensors");
        let cast: Vec<PendingTensor<'_>> = cast.collect();
        tensor_file::save_pending(&path, &cast, ("format", "mlx"))?;
        write_synced(&folder.join("config.json"), &self.config)?;
        for file in &self.tokenizer {
            let name = match file.extension() {
                // A tokenizer in another folder with a nonstandard name.
                Some(kind) if kind == "json" && !is_known(file) => "tokenizer.json".into(),
                Some(kind) if kind == "model" && !is_known(file) => "tokenizer.model".into(),
                _ => file.file_name().unwrap_or_default().to_os_string(),
            };
            copy_synced(file, &folder.join(name))?;
        }
        Ok(())
    }
}

fn is_known(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| TOKENIZER_FILES.contains(&name))
}

/// The weights of a model of `config`, in f32.
pub(super) fn weights(folder: &Path, config: &Config) -> Result<Weights> {
    let checkpoint = Checkpoint::open(folder)?;
    checkpoint.check(config)?;
    let options = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized: false,
    };
    Weights::read(&checkpoint, config, options, &mut |_, _| {})
}

/// The [`mean`] of the weights in `folders`.
pub(super) fn average(folders: &[PathBuf]) -> Result<Tensors> {
    let mut opened = Vec::with_capacity(folders.len());
    for folder in folders {
        let checkpoint = Checkpoint::open(folder)?;
        opened.push((Readers::open(&checkpoint)?, checkpoint));
    }
    let Some((_, first)) = opened.first() else {
        return Ok(Tensors::new());
    };
    let names: Vec<String> = first.tensors().keys().cloned().collect();
    let mut averaged = Tensors::new();
    for name in names {
        let arrays = opened.iter_mut();
        let average = mean(arrays.map(|(readers, _)| readers.next().take(&name)))?;
        averaged.insert(name, average);
    }
    Ok(averaged)
}
