//! Detection of a file's or folder's format and architecture.

use std::path::Path;

use super::{
    check::{fits, tokens},
    source_model::{Files, SourceModel, stored_name},
};
use crate::{
    config::{
        Config, Preset,
        tensor_names::{EMBEDDING, weight},
    },
    convert::{
        ConvertOptions,
        gguf::{check_tensors, config_from_gguf},
    },
    error::{Error, Remedy, Result},
    formats::{gguf::GgufReader, torch::TorchFile},
    hub_cache, json,
    lookup::{PathKind, first_file, path_kind},
    mlx::QuantizationMap,
    text_file::{self, MAX_SETTINGS},
    weights::{Checkpoint, Readers, model_folder},
};

/// Weights of CoreNet's MLX example.
pub(crate) const CORENET_WEIGHTS: &str = "weights.safetensors";

impl SourceModel {
    pub(crate) fn open(path: &Path, options: &ConvertOptions) -> Result<Self> {
        let mut source = match path_kind(path)? {
            None => return Err(hub_cache::absent(path, "a model's folder or file")),
            Some(PathKind::Folder) => Self::folder(path, options)?,
            Some(_) => Self::file(path, options)?,
        };
        if options.keep_padding_rows {
            source.keep_padding_rows()?;
        }
        source.check()?;
        if options.ema && !matches!(source.files, Files::Torch(_)) {
            let problem = "only PyTorch's training checkpoints have a moving average";
            return Err(Error::option("ema", problem));
        }
        // A GGUF file has types of its own.
        let is_float = source.quantization.is_none() && !matches!(source.files, Files::Gguf(_));
        if options.dequantize && is_float {
            return Err(Error::option("dequantize", "the model is not quantised"));
        }
        for path in &options.average_with {
            let one = ConvertOptions {
                average_with: Vec::new(),
                dequantize: false,
                ..options.clone()
            };
            let other = Self::open(path, &one)?;
            source.check_average(&other)?;
            source.others.push(other);
        }
        if let Some(adapter) = &options.adapter {
            adapter.check_fusable(&source.config, adapter.place())?;
            source.adapter = Some(adapter.clone());
        }
        Ok(source)
    }

    fn new(path: &Path, format: &'static str, config: Config, files: Files) -> Result<Self> {
        let readers = match &files {
            Files::Safetensors(checkpoint) => Readers::open(checkpoint)?,
            _ => Readers::without_files(path)?,
        };
        Ok(Self {
            path: path.into(),
            format,
            shapes: config.tensors().into_iter().collect(),
            config,
            quantization: None,
            corenet_names: false,
            files,
            readers,
            adapter: None,
            others: Vec::new(),
        })
    }

    fn folder(path: &Path, options: &ConvertOptions) -> Result<Self> {
        let corenet = hub_cache::resolve(path, &[CORENET_WEIGHTS])?;
        if let Some(weights) = first_file(&corenet, &[CORENET_WEIGHTS])? {
            return Self::corenet_mlx(&corenet, Checkpoint::open_file(&weights)?, options);
        }
        let path = model_folder(path)?;
        let config = match &options.architecture {
            Some(config) => config.clone(),
            None => Config::load(&path)?,
        };
        let checkpoint = Checkpoint::open(&path)?;
        checkpoint.check(&config)?;
        let quantization = config.quantization_map()?;
        let format = match quantization {
            Some(_) => "quantised MLX folder",
            None => "Hugging Face folder",
        };
        let source = Self::new(&path, format, config, Files::Safetensors(checkpoint))?;
        Ok(Self {
            quantization,
            ..source
        })
    }

    /// Opens a folder of CoreNet's MLX example, whose `config.json` names a preset.
    fn corenet_mlx(path: &Path, checkpoint: Checkpoint, options: &ConvertOptions) -> Result<Self> {
        let file = path.join("config.json");
        let fault = |key: &str, problem: String| Error::config(&file, key, problem);
        let text = text_file::read(&file, MAX_SETTINGS, |problem| fault("(file)", problem))?;
        let json: serde_json::Value = json::parse(&text)
            .map_err(|error| fault("model_name", format!("not JSON: {error}")))?;
        let quantization = match json.get("quantization") {
            None | Some(serde_json::Value::Null) => None,
            Some(block) => Some(
                QuantizationMap::from_json(block)
                    .map_err(|problem| fault("quantization", problem))?,
            ),
        };
        let named = json.get("model_name").and_then(|name| name.as_str());
        let shape = |name: &str| checkpoint.tensors().get(name).map(|t| t.shape.clone());
        let config = match (&options.architecture, named) {
            (Some(config), _) => config.clone(),
            (None, Some(name)) => {
                let rows = embedding_rows(path, &shape)?;
                let preset: Preset = name.parse().map_err(|problem: Error| {
                    fault("model_name", problem.to_string().replace("preset: ", ""))
                })?;
                preset.with_vocab(tokens(rows))?
            }
            (None, None) => return Err(fault("model_name", "missing".into())),
        };
        let files = Files::Safetensors(checkpoint);
        let source = Self::new(path, "CoreNet MLX folder", config, files)?;
        Ok(Self {
            quantization,
            corenet_names: true,
            ..source
        })
    }

    fn file(path: &Path, options: &ConvertOptions) -> Result<Self> {
        let named = |ending| {
            let found = path.extension();
            found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
        };
        if named("safetensors") {
            let problem = "give the path of its folder, which has a config.json";
            return Err(Error::checkpoint(path, problem));
        }
        // A result during verification can have any name.
        if named("gguf") || GgufReader::recognizes(path)? {
            let reader = GgufReader::open(path)?;
            let config = match &options.architecture {
                Some(config) => config.clone(),
                None => config_from_gguf(&reader)?,
            };
            check_tensors(&reader, &config)?;
            return Self::new(path, "GGUF file", config, Files::Gguf(reader));
        }
        let file = TorchFile::open_with(path, options.ema)?;
        let corenet_names = !file.tensors().contains_key(&weight(EMBEDDING));
        let shape = |name: &str| {
            let name = stored_name(name, corenet_names);
            file.tensors().get(&name).map(|tensor| tensor.shape.clone())
        };
        let config = match &options.architecture {
            Some(config) => config.clone(),
            None => infer(path, &shape)?,
        };
        let source = Self::new(path, "PyTorch checkpoint", config, Files::Torch(file))?;
        Ok(Self {
            corenet_names,
            ..source
        })
    }
}

fn embedding_rows(path: &Path, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<usize> {
    let found = ["token_embeddings.weight", &weight(EMBEDDING)]
        .iter()
        .find_map(|name| shape(name)?.first().copied());
    found.ok_or_else(|| Error::checkpoint(path, "tensor `token_embeddings.weight` is missing"))
}

/// The released architecture with these shapes; `shape` takes Hugging Face's names.
fn infer(path: &Path, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Config> {
    let rows = embedding_rows(path, shape)?;
    let has =
        |name: &str, expected: &[usize]| shape(name).is_some_and(|found| fits(&found, expected));
    Preset::with_tensors(tokens(rows), has).ok_or_else(|| {
        let problem = "the tensors match none of OpenELM's four sizes";
        Error::checkpoint(path, problem).with_remedy(Remedy::Architecture)
    })
}
