//! Files of prompt caches in mlx-lm's format, `save_prompt_cache` and `load_prompt_cache` of
//! mlx-lm 0.32.
//!
//! The file is a safetensors file. Its arrays have the names `LAYER.PLACE` of the state of mlx-lm's
//! cache class; numbers are arrays without axes. The metadata is a list of three parts: `0.NAME` are
//! entries for the reader, `1.LAYER` the classes, and `2.N.0` the names of the numbers. This crate
//! adds the entries `openelm_tokens` and `openelm_fingerprint`, which mlx-lm ignores.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::Read,
    path::Path,
};

use mlx_rs::{Array, Dtype as MlxDtype};
use safetensors::{
    SafeTensorError, SafeTensors,
    tensor::{Dtype as FileDtype, Metadata, TensorView, serialize},
};

use super::{
    chat_file::CHAT,
    prompt_cache::{PromptCache, UNKNOWN},
};
use crate::{
    error::{Error, Result},
    files::{check_replaceable, write_beside},
    lookup::{PathKind, path_kind},
    mlx::Dtype,
    model::{KvCache, LayerState, Model},
    text_file::{LFS_POINTER, LFS_PROBLEM},
};

const MODEL: &str = "0.model";
const TOKENIZER_CONFIG: &str = "0.tokenizer_config";
const TOKENS: &str = "0.openelm_tokens";
const FINGERPRINT: &str = "0.openelm_fingerprint";

/// Largest header in bytes, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

impl PromptCache {
    /// Writes the cache of `model` with its active adapters to a file that this crate and mlx-lm
    /// read. `name` is the model's path or repository: mlx-lm uses the cache with this name only. A
    /// file that this function wrote is replaced.
    ///
    /// # Errors
    /// [`Error::Option`] if the cache is empty, or of another model or other adapters,
    /// [`Error::Destination`] if another file is at `path`, [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>, model: &Model, name: &str) -> Result<()> {
        if !self.is_of(model) || self.offset() == 0 {
            return Err(self.of_another_model());
        }
        self.write(path.as_ref(), model, (MODEL, name))
    }

    /// Writes the cache with `entry` in the metadata, which states the kind of the file: a file of
    /// another kind is not replaced. An empty cache, and one of other adapters, is written without
    /// keys and values.
    pub(super) fn write(
        &self,
        path: &Path,
        model: &Model,
        (kind, entry): (&str, &str),
    ) -> Result<()> {
        check_own(path, kind)?;
        let mut metadata = HashMap::from([
            (TOKENIZER_CONFIG.to_owned(), "{}".to_owned()),
            (FINGERPRINT.to_owned(), model.fingerprint()?),
            // mlx-lm's list of numbers begins with an empty text.
            ("2.0".to_owned(), String::new()),
            (kind.to_owned(), entry.to_owned()),
        ]);
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let usable = self.cache.as_ref().filter(|_| self.is_of(model));
        if let Some(cache) = usable.filter(|cache| cache.offset() > 0) {
            self.describe(path, cache, &mut metadata, &mut tensors)?;
        }
        let views = tensors.iter().map(|(name, tensor)| {
            let Tensor {
                dtype,
                shape,
                bytes,
            } = tensor;
            Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?))
        });
        let views: std::result::Result<Vec<_>, SafeTensorError> = views.collect();
        let views = views.map_err(|error| Error::checkpoint(path, error.to_string()))?;
        let bytes = serialize(views, Some(metadata));
        let bytes = bytes.map_err(|error| Error::checkpoint(path, error.to_string()))?;
        write_beside(path, |partial| {
            fs::write(partial, bytes).map_err(Error::io(path))
        })
    }

    /// Adds the keys and values of `cache` to the tensors and the metadata of a file.
    fn describe(
        &self,
        path: &Path,
        cache: &KvCache,
        metadata: &mut HashMap<String, String>,
        tensors: &mut Vec<(String, Tensor)>,
    ) -> Result<()> {
        let tokens = self.tokens.get(..cache.offset()).unwrap_or(&self.tokens);
        if !tokens.contains(&UNKNOWN) {
            metadata.insert(TOKENS.to_owned(), serde_json::json!(tokens).to_string());
        }
        let mut numbers = 0;
        for (layer, state) in cache.to_states()?.into_iter().enumerate() {
            metadata.insert(format!("1.{layer}"), state.class);
            for (place, array) in state.arrays {
                tensors.push((format!("{layer}.{place}"), Tensor::of(path, &array)?));
            }
            for (place, number) in state.numbers {
                let name = format!("{layer}.{place}");
                numbers += 1;
                metadata.insert(format!("2.{numbers}.0"), name.clone());
                metadata.insert(format!("2.{numbers}.1"), "scalar".to_owned());
                tensors.push((name, Tensor::number(number)));
            }
        }
        Ok(())
    }

    /// Reads a file of this crate or of mlx-lm for `model` with its active adapters. A file of
    /// mlx-lm, which does not name its model, is accepted if its shapes and its dtype fit; its tokens
    /// are unknown, and only [`Generation::continuing`](super::Generation::continuing) uses it.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], and [`Error::Checkpoint`] if the file is truncated or
    /// malformed, or of another model, other adapters or another dtype.
    pub fn load(path: impl AsRef<Path>, model: &Model) -> Result<Self> {
        let path = path.as_ref();
        let file = CacheFile::read(path, "a prompt cache")?;
        let malformed = |problem: String| Error::checkpoint(path, problem);
        if file.layers.is_empty() {
            let problem = "not a prompt cache: its metadata names no classes of caches";
            return Err(malformed(problem.into()));
        }
        file.check_dtype(model.dtype()).map_err(malformed)?;
        if !file.is_of(model)? {
            let problem = "the prompt cache is of another model, or of other adapters";
            return Err(malformed(problem.into()));
        }
        file.into_cache(path, model)
    }
}

impl CacheFile {
    /// Reads the file `path` of `what`.
    pub(super) fn read(path: &Path, what: &str) -> Result<Self> {
        match path_kind(path)? {
            Some(PathKind::File) => {}
            Some(_) => {
                let problem = format!("expected a file of {what}");
                return Err(Error::checkpoint(path, problem));
            }
            None => {
                let problem = format!("there is no file of {what} here");
                return Err(Error::missing_file(path, problem));
            }
        }
        let bytes = fs::read(path).map_err(Error::io(path))?;
        Self::parse(&bytes).map_err(|problem| Error::checkpoint(path, problem))
    }

    /// The entry `name` of the metadata.
    pub(super) fn entry(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// The keys and values, if they are of `model` with its active adapters and its dtype.
    pub(super) fn usable_cache(self, path: &Path, model: &Model) -> Result<Option<PromptCache>> {
        let is_usable = self.check_dtype(model.dtype()).is_ok() && self.is_of(model)?;
        if !is_usable || self.layers.is_empty() {
            return Ok(None);
        }
        self.into_cache(path, model).map(Some)
    }

    /// False if the file names another model or other adapters.
    fn is_of(&self, model: &Model) -> Result<bool> {
        let own = self.metadata.get(FINGERPRINT);
        Ok(match own {
            Some(found) => *found == model.fingerprint()?,
            None => true,
        })
    }

    fn into_cache(self, path: &Path, model: &Model) -> Result<PromptCache> {
        let malformed = |problem: String| Error::checkpoint(path, problem);
        let file = self;
        let (config, dtype) = (model.config(), model.dtype());
        let cache = KvCache::from_states(config, dtype, file.layers).map_err(malformed)?;
        let tokens = match file.metadata.get(TOKENS) {
            Some(text) => {
                let known = |tokens: &Vec<u32>| {
                    let vocab = config.vocab_size();
                    tokens.len() == cache.offset() && tokens.iter().all(|&id| (id as usize) < vocab)
                };
                let tokens = serde_json::from_str(text).ok().filter(known);
                let problem = || malformed("`openelm_tokens` does not fit its positions".into());
                tokens.ok_or_else(problem)?
            }
            None => vec![UNKNOWN; cache.offset()],
        };
        let loaded = PromptCache {
            cache: Some(cache),
            tokens,
            revision: model.adapters.revision,
        };
        loaded.eval()?;
        Ok(loaded)
    }
}

/// A tensor to write.
struct Tensor {
    dtype: FileDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn of(path: &Path, array: &Array) -> Result<Self> {
        let dtype = match array.dtype() {
            MlxDtype::Float32 => FileDtype::F32,
            MlxDtype::Float16 => FileDtype::F16,
            MlxDtype::Bfloat16 => FileDtype::BF16,
            MlxDtype::Uint32 => FileDtype::U32,
            other => {
                let problem = format!("keys or values have the type {other:?}");
                return Err(Error::checkpoint(path, problem));
            }
        };
        let bytes = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
        let bytes = bytes.try_as_slice::<u8>();
        let bytes = bytes.map_err(|error| Error::checkpoint(path, error.to_string()))?;
        Ok(Self {
            dtype,
            shape: array.shape().iter().map(|&n| n as usize).collect(),
            bytes: bytes.to_vec(),
        })
    }

    /// A number as MLX makes an array of a Python number.
    fn number(number: i64) -> Self {
        Self {
            dtype: FileDtype::I32,
            shape: Vec::new(),
            bytes: (number as i32).to_le_bytes().to_vec(),
        }
    }
}

/// The parts of a file.
pub(super) struct CacheFile {
    metadata: HashMap<String, String>,
    layers: Vec<LayerState>,
}

impl CacheFile {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(LFS_POINTER) {
            return Err(LFS_PROBLEM.into());
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| problem(&error))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let class = |layer: usize| metadata.get(&format!("1.{layer}")).cloned();
        let classes = (0..).map_while(class);
        let mut layers: Vec<LayerState> = classes
            .map(|class| LayerState {
                class,
                ..LayerState::default()
            })
            .collect();
        let names = |metadata: &HashMap<String, String>| {
            let entries = (1..).map_while(|n| metadata.get(&format!("2.{n}.0")).cloned());
            entries.collect::<BTreeSet<String>>()
        };
        let numbers = names(&metadata);
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| problem(&error))?;
        for (name, view) in tensors.iter() {
            let unexpected = || format!("unexpected tensor `{name}`");
            let (layer, place) = name.split_once('.').ok_or_else(unexpected)?;
            let layer = layer.parse().ok().and_then(|n: usize| layers.get_mut(n));
            let layer = layer.ok_or_else(unexpected)?;
            if numbers.contains(name) {
                layer.numbers.insert(place.into(), number(name, &view)?);
            } else {
                layer.arrays.insert(place.into(), array(name, &view)?);
            }
        }
        Ok(Self { metadata, layers })
    }

    /// Checks the type of the first keys, which explains a difference best.
    fn check_dtype(&self, dtype: Dtype) -> Result<(), String> {
        let mut arrays = self.layers.iter().flat_map(|layer| layer.arrays.values());
        let float = arrays.find(|array| array.dtype() != MlxDtype::Uint32);
        match float.map(Array::dtype) {
            Some(found) if found != dtype.mlx() => Err(format!(
                "the prompt cache has the type {}, the model computes in {dtype}",
                format!("{found:?}").to_lowercase()
            )),
            _ => Ok(()),
        }
    }
}

/// The problem of a file that is not read.
fn problem(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
            "truncated or damaged: its header describes other lengths".into()
        }
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::HeaderTooLarge
        | SafeTensorError::InvalidHeader(_) => format!("not a safetensors file: {error}"),
        error => format!("the safetensors header is malformed: {error}"),
    }
}

fn number(name: &str, view: &TensorView<'_>) -> Result<i64, String> {
    let found = match (view.dtype(), view.data()) {
        (FileDtype::I32, &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d]).into()),
        (FileDtype::I64, data) => data.try_into().ok().map(i64::from_le_bytes),
        _ => None,
    };
    let (dtype, shape) = (view.dtype(), view.shape());
    found.ok_or_else(|| format!("`{name}`: expected a number, found {dtype:?} {shape:?}"))
}

fn array(name: &str, view: &TensorView<'_>) -> Result<Array, String> {
    let dtype = match view.dtype() {
        FileDtype::F32 => MlxDtype::Float32,
        FileDtype::F16 => MlxDtype::Float16,
        FileDtype::BF16 => MlxDtype::Bfloat16,
        FileDtype::U32 => MlxDtype::Uint32,
        other => {
            return Err(format!(
                "tensor `{name}`: expected F32, F16, BF16 or U32, found {other:?}"
            ));
        }
    };
    let data = view.data();
    let length = i32::try_from(data.len()).ok().filter(|length| *length > 0);
    let shape = view.shape().iter().map(|&n| i32::try_from(n).ok());
    let (Some(length), Some(shape)) = (length, shape.collect::<Option<Vec<_>>>()) else {
        let shape = view.shape();
        return Err(format!(
            "tensor `{name}`: the shape {shape:?} is empty or too large"
        ));
    };
    let words = Array::from_slice(data, &[length]).view_dtype(dtype);
    let array = words.and_then(|words| words.reshape(&shape));
    array.map_err(|error| format!("tensor `{name}`: {error}"))
}

/// Refuses to replace a file that [`PromptCache::write`] did not write with the entry `kind`.
fn check_own(path: &Path, kind: &str) -> Result<()> {
    check_replaceable(path)?;
    match path_kind(path)? {
        None => return Ok(()),
        Some(PathKind::File) if is_own(path, kind).unwrap_or(false) => return Ok(()),
        Some(_) => {}
    }
    let what = if kind == CHAT {
        "conversation"
    } else {
        "prompt cache"
    };
    let problem = format!("exists and is not a {what} of openelm; choose another path");
    Err(Error::destination(path, problem))
}

fn is_own(path: &Path, kind: &str) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    let mut header = Vec::new();
    file.take(size.min(MAX_HEADER)).read_to_end(&mut header)?;
    let header: Option<Metadata> = serde_json::from_slice(&header).ok();
    let metadata = header.and_then(|header| header.metadata().clone());
    Ok(metadata.is_some_and(|all| all.contains_key(FINGERPRINT) && all.contains_key(kind)))
}
