//! The unquantised model, read layer by layer in f32.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use mlx_rs::{Array, fast::rms_norm};

use crate::{
    config::{
        Config,
        tensor_names::{EMBEDDING, FINAL_NORM, HEAD, layer, weight},
    },
    convert::{
        ConvertOptions, TokenizerChoice,
        source::{Precision, SourceModel},
        source_tokenizer,
    },
    data::Fingerprint,
    error::{Error, Result},
    mlx::{Dtype, evaluation},
    model::{SingleLayer, is_finite, value_at_fault},
    tokenizer::Tokenizer,
    weights::Weights,
};

/// A model's folder or file. Holds no weights.
#[derive(Debug)]
pub(super) struct ModelReader {
    path: PathBuf,
    config: Config,
}

impl ModelReader {
    /// Opens the model at `path`.
    ///
    /// # Errors
    /// [`Error::Option`] if it is quantised; the errors of the source's readers.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let source = SourceModel::open(path, &ConvertOptions::default())?;
        let config = source.config.clone();
        let mut tensors = config.tensors().into_iter();
        let is_quantized = |name: &str| !matches!(source.precision(name), Precision::Float(_));
        if let Some((name, _)) = tensors.find(|(name, _)| is_quantized(name)) {
            let problem = format!(
                "expected an unquantised model, found `{name}` quantised in {}",
                path.display()
            );
            return Err(Error::option("model", problem));
        }
        Ok(Self {
            path: path.to_path_buf(),
            config,
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Size of the weights, in bytes.
    pub(super) fn bytes(&self) -> Result<u64> {
        Ok(self.source()?.bytes())
    }

    /// The tokenizer that `choice` selects.
    ///
    /// # Errors
    /// [`Error::Option`] without a tokenizer; the errors of its files.
    pub(super) fn tokenizer(&self, choice: &TokenizerChoice) -> Result<Tokenizer> {
        source_tokenizer(&self.source()?, choice)
    }

    /// Identifies the files: their names, sizes and times of change.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let mut files = Vec::new();
        let folder = if self.path.is_dir() {
            let entries = fs::read_dir(&self.path).map_err(Error::io(&self.path))?;
            for entry in entries {
                files.push(entry.map_err(Error::io(&self.path))?.path());
            }
            &self.path
        } else {
            files.push(self.path.clone());
            &self.path
        };
        files.sort();
        let mut hash = Fingerprint::new();
        for file in files {
            let found = fs::metadata(&file).map_err(Error::io(folder))?;
            if !found.is_file() {
                continue;
            }
            let changed = found.modified().ok();
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            hash.bytes(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.number(found.len());
            hash.number(changed.map_or(0, |time| time.as_nanos() as u64));
        }
        Ok(hash.to_string())
    }

    /// The type of the scales of the matrix `stem`: that of its numbers.
    pub(super) fn dtypes(&self) -> Result<HashMap<String, Dtype>> {
        let source = self.source()?;
        let tensors = self.config.tensors();
        let dtypes = tensors.into_iter().map(|(name, _)| {
            let dtype = source.dtype(&name);
            let stem = name.strip_suffix(".weight").map(str::to_owned);
            (stem.unwrap_or(name), dtype)
        });
        Ok(dtypes.collect())
    }

    /// The embedding f32 `[V, D]`.
    pub(super) fn embedding(&self) -> Result<Array> {
        self.tensor(&weight(EMBEDDING))
    }

    /// The head f32 `[V, D]`, which may be the embedding.
    pub(super) fn head(&self) -> Result<Array> {
        if self.config.share_input_output_layers() {
            self.embedding()
        } else {
            self.tensor(&weight(HEAD))
        }
    }

    /// The norm of the last layer's output `x` `[B, L, D]`.
    pub(super) fn final_norm(&self) -> Result<impl Fn(&Array) -> Result<Array> + use<>> {
        let norm = self.tensor(&weight(FINAL_NORM))?;
        let eps = self.config.rms_norm_eps() as f32;
        Ok(move |x: &Array| Ok(rms_norm(x, Some(&norm), eps)?))
    }

    /// The layer `index`, in f32.
    pub(super) fn layer(&self, index: usize) -> Result<SingleLayer> {
        let mut source = self.source()?;
        let prefix = layer(index, "");
        let mut tensors = HashMap::new();
        for (name, _) in self.config.tensors() {
            if name.starts_with(&prefix) {
                let tensor = source.dense(&name, Dtype::Float32)?;
                evaluation::complete([&tensor])?;
                check_finite(&name, &tensor)?;
                tensors.insert(name, tensor);
            }
        }
        SingleLayer::new(&self.config, index, &mut Weights::from_tensors(tensors))
    }

    fn tensor(&self, name: &str) -> Result<Array> {
        let tensor = self.source()?.dense(name, Dtype::Float32)?;
        evaluation::complete([&tensor])?;
        check_finite(name, &tensor)?;
        Ok(tensor)
    }

    /// Each tensor of a source can be read once.
    fn source(&self) -> Result<SourceModel> {
        SourceModel::open(&self.path, &ConvertOptions::default())
    }
}

fn check_finite(name: &str, tensor: &Array) -> Result<()> {
    if is_finite(tensor)? {
        return Ok(());
    }
    let value = value_at_fault(tensor)?.unwrap_or("NaN");
    Err(Error::NonFinite {
        place: "the model".into(),
        problem: format!("tensor `{name}` holds {value}"),
    })
}
