//! The progress of a quantisation: a hidden folder beside the target with a file for each finished
//! part of the network. A run with the same key continues it.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use mlx_rs::Array;

use crate::{
    config::tensor_names::{parse_layer, weight},
    error::{Error, Result},
    files::{Activity, CreatedFolders, WriteLock, parent, remove, resolve, work_path, write_file},
    mlx::{Dtype, QuantizationMap, QuantizedMatrix},
    weights::{Tensors, tensor_file},
};

/// The file of the key.
const KEY: &str = "key.json";

/// The finished parts of a quantisation. One process at a time uses them.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    _lock: WriteLock,
    parents: CreatedFolders,
    /// The part that was read last.
    last: RefCell<Option<(String, Tensors)>>,
}

impl State {
    /// Opens the progress of a run to `target` with `key`; a run with another key is forgotten.
    ///
    /// # Errors
    /// [`Error::Destination`] if another process quantises to `target`; [`Error::Io`].
    pub(super) fn open(target: &Path, key: &str) -> Result<Self> {
        let place = resolve(target)?;
        let folder = work_path(&place);
        let parents = CreatedFolders::create(parent(&place))?;
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock =
            WriteLock::of_folder(&folder, Activity::Writing).map_err(|error| match error {
                Error::Destination { problem, .. } => Error::destination(target, problem),
                other => other,
            })?;
        let state = Self {
            folder,
            _lock: lock,
            parents,
            last: RefCell::new(None),
        };
        let found = fs::read_to_string(state.folder.join(KEY)).unwrap_or_default();
        if found != key {
            state.clear()?;
            write_file(state.folder.join(KEY), key)?;
        }
        Ok(state)
    }

    /// True if the part `name` is finished.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The text of the part `name`, if it is finished.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// Keeps the text of the part `name`.
    pub(super) fn save_text(&self, name: &str, text: &str) -> Result<()> {
        write_file(self.folder.join(name), text)
    }

    /// Keeps the tensors of the part `name`, with a number.
    pub(super) fn save(&self, name: &str, tensors: &Tensors, number: u64) -> Result<()> {
        self.last.take();
        tensor_file::save(&self.path(name), tensors, (NUMBER, &number.to_string()))
    }

    /// The tensors of the finished part `name`.
    pub(super) fn load(&self, name: &str) -> Result<Tensors> {
        tensor_file::load(&self.path(name))
    }

    /// The number of the finished part `name`.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        let path = self.path(name);
        let text = tensor_file::metadata(&path, NUMBER)?;
        let malformed = |_| Error::checkpoint(&path, format!("`{NUMBER}` is no number"));
        text.parse().map_err(malformed)
    }

    /// The tensor `name` of a finished part.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<Array>> {
        let part = part_of(name);
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(found, _)| *found != part) {
            if !self.has(&part) {
                return Ok(None);
            }
            let tensors = self.load(&part)?;
            *last = Some((part, tensors));
        }
        Ok(last
            .as_ref()
            .and_then(|(_, tensors)| tensors.get(name).cloned()))
    }

    /// The quantised matrix `stem` of a finished part.
    pub(super) fn matrix(
        &self,
        stem: &str,
        widths: &QuantizationMap,
    ) -> Result<Option<QuantizedMatrix>> {
        let scales = self.tensor(&format!("{stem}.scales"))?;
        let weight = self.tensor(&weight(stem))?;
        Ok(match (weight, scales, widths.layer(stem)) {
            (Some(weight), Some(scales), Some(quantization)) => Some(QuantizedMatrix {
                weight,
                scales,
                biases: self.tensor(&format!("{stem}.biases"))?,
                quantization,
            }),
            _ => None,
        })
    }

    /// The matrix or norm `name` (its tensor's name without `.weight`) of a finished part, f32.
    pub(super) fn float32(&self, name: &str, widths: &QuantizationMap) -> Result<Option<Array>> {
        if let Some(matrix) = self.matrix(name, widths)? {
            return Ok(Some(matrix.expand(Dtype::Float32)?));
        }
        let tensor = self.tensor(&weight(name))?;
        let tensor = tensor.map(|tensor| tensor.as_dtype(mlx_rs::Dtype::Float32));
        Ok(tensor.transpose()?)
    }

    /// Removes the progress: the result is complete.
    pub(super) fn remove(mut self) -> Result<()> {
        self.parents.keep();
        remove(&self.folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    /// Removes the parts of another run.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            if path.file_name() != Some(crate::files::LOCK_FILE.as_ref()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The metadata entry of a part's number.
const NUMBER: &str = "number";

/// The part of the tensor or matrix `name`: its layer, or its matrix if it is outside of layers.
pub(super) fn part_of(name: &str) -> String {
    match parse_layer(name) {
        Some((index, _)) => format!("layer-{index:04}"),
        None => {
            let endings = [".weight", ".scales", ".biases"];
            let mut stems = endings
                .iter()
                .filter_map(|ending| name.strip_suffix(ending));
            stems.next().unwrap_or(name).to_owned()
        }
    }
}
