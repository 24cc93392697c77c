//! Reads a checkpoint's tensors on several threads in turn: one thread does not saturate the memory
//! bandwidth, and each MLX CPU kernel runs on one thread.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use mlx_rs::{Array, Stream, with_stream};

use super::{
    checkpoint::Checkpoint,
    stored_tensor::{StoredDtype, StoredTensor},
};
use crate::{
    error::{Error, Result},
    mlx::{Device, Dtype, Quantization, QuantizedMatrix, mapped},
};

/// [`Reader`]s that are used in turn.
pub(crate) struct Readers {
    all: Vec<Reader>,
    next: usize,
}

/// A checkpoint's files, read on one stream.
pub(crate) struct Reader {
    files: Files,
    folder: PathBuf,
    computing: Stream,
}

/// The method of reading tensors from the files.
enum Files {
    /// Opened by MLX: each array is read on evaluation, by its stream's thread.
    Lazy(HashMap<String, Array>),
    /// Mapped: on a CPU, where arrays are plain memory.
    Mapped(Arc<Mapped>),
}

/// Open files and the offsets of the tensors.
struct Mapped {
    files: HashMap<PathBuf, File>,
    tensors: BTreeMap<String, StoredTensor>,
}

impl Readers {
    /// Opens the checkpoint's files.
    pub(crate) fn open(checkpoint: &Checkpoint) -> Result<Self> {
        for file in checkpoint.files() {
            checkpoint.check_unchanged(file)?;
        }
        let mapped = match Device::current()? {
            Device::Cpu => Some(Arc::new(Mapped::open(checkpoint)?)),
            Device::Gpu => None,
        };
        Self::new(checkpoint.folder(), |stream| match &mapped {
            Some(mapped) => Ok(Files::Mapped(Arc::clone(mapped))),
            None => Files::lazy(checkpoint, stream),
        })
    }

    /// Readers without files, for computation only.
    pub(crate) fn without_files(path: &Path) -> Result<Self> {
        Self::new(path, |_| Ok(Files::Lazy(HashMap::new())))
    }

    fn new(folder: &Path, mut files: impl FnMut(&Stream) -> Result<Files>) -> Result<Self> {
        let streams = STREAMS.with(Vec::clone);
        let readers = streams.into_iter().map(|stream| {
            Ok(Reader {
                files: files(&stream)?,
                folder: folder.to_path_buf(),
                computing: computing(stream)?,
            })
        });
        Ok(Self {
            all: readers.collect::<Result<_>>()?,
            next: 0,
        })
    }

    /// The next reader in turn.
    pub(crate) fn next(&mut self) -> &mut Reader {
        self.next = (self.next + 1) % self.all.len();
        &mut self.all[self.next]
    }

    /// The number of tensors that can be in progress at once.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }
}

impl Files {
    fn lazy(checkpoint: &Checkpoint, stream: &Stream) -> Result<Self> {
        let mut lazy = HashMap::with_capacity(checkpoint.tensors().len());
        for file in checkpoint.files() {
            let arrays = with_stream(stream, || Array::load_safetensors(file));
            lazy.extend(arrays.map_err(|error| Error::checkpoint(file, error.to_string()))?);
        }
        Ok(Self::Lazy(lazy))
    }
}

impl Mapped {
    fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let open = |path: &PathBuf| Ok((path.clone(), File::open(path).map_err(Error::io(path))?));
        Ok(Self {
            files: checkpoint.files().iter().map(open).collect::<Result<_>>()?,
            tensors: checkpoint.tensors().clone(),
        })
    }

    fn map(&self, name: &str) -> Option<Result<Array>> {
        let stored = self.tensors.get(name)?;
        let file = self.files.get(&stored.file)?;
        let shape: Vec<i32> = stored.shape.iter().map(|&n| n as i32).collect();
        let (offset, bytes, dtype) = (stored.offset, stored.bytes(), stored.dtype.mlx());
        Some(if stored.is_mappable() {
            mapped::map(file, &stored.file, offset, bytes, &shape, dtype)
        } else {
            mapped::read(file, &stored.file, offset, bytes, &shape, dtype)
        })
    }
}

impl Reader {
    /// Takes the tensor `name`, once.
    pub(crate) fn take(&mut self, name: &str) -> Result<Array> {
        let array = match &mut self.files {
            Files::Lazy(lazy) => lazy.remove(name).map(Ok),
            Files::Mapped(mapped) => mapped.map(name),
        };
        array.unwrap_or_else(|| {
            Err(Error::checkpoint(
                &self.folder,
                format!("tensor `{name}` vanished while the model was loaded"),
            ))
        })
    }

    /// Takes the quantised matrix `stem`, once.
    pub(crate) fn packed(
        &mut self,
        stem: &str,
        quantization: Quantization,
    ) -> Result<QuantizedMatrix> {
        let biases = if quantization.has_biases() {
            Some(self.take(&format!("{stem}.biases"))?)
        } else {
            None
        };
        Ok(QuantizedMatrix {
            weight: self.take(&format!("{stem}.weight"))?,
            scales: self.take(&format!("{stem}.scales"))?,
            biases,
            quantization,
        })
    }

    /// Takes the tensor `name`, cast if it is floating-point and of another type.
    pub(crate) fn cast(&mut self, name: &str, stored: StoredDtype, dtype: Dtype) -> Result<Array> {
        let array = self.take(name)?;
        match stored {
            StoredDtype::Float(stored) if stored != dtype => {
                self.compute(|| Ok(array.as_dtype(dtype.mlx())?))
            }
            _ => Ok(array),
        }
    }

    /// The dequantised values of the matrix `stem`.
    pub(crate) fn expand(
        &mut self,
        stem: &str,
        quantization: Quantization,
        dtype: Dtype,
    ) -> Result<Array> {
        let packed = self.packed(stem, quantization)?;
        self.compute(|| packed.expand(dtype))
    }

    /// Runs `work`; its operations are evaluated on this reader's stream.
    pub(crate) fn compute<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        with_stream(&self.computing, work)
    }
}

thread_local! {
    /// The streams for reading. MLX never ends a stream's thread, so they are made once.
    static STREAMS: Vec<Stream> = {
        let count = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_READERS));
        let cpu = mlx_rs::Device::cpu();
        (0..count).map(|_| Stream::new_with_device(&cpu)).collect()
    };
}

/// More threads do not read files faster.
const MAX_READERS: usize = 4;

/// The stream for computation with arrays that were read on a CPU stream.
fn computing(reading: Stream) -> Result<Stream> {
    Ok(match Device::current()? {
        Device::Cpu => reading,
        Device::Gpu => Stream::new(),
    })
}
