//! Reads a checked checkpoint into MLX arrays, one tensor at a time.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
};

use mlx_rs::{
    Array,
    transforms::{self, async_eval},
};

use super::{allocation::Allocation, checkpoint::Checkpoint, parallel_reader::Readers};
use crate::{
    cancel::CancelHandle,
    config::Config,
    error::{Error, Result},
    gate::pause_point,
    mlx::{
        Device, Dtype, Matrix, Quantization, QuantizationMap, QuantizedMatrix,
        cache_policy::WeightReading,
    },
};

/// Options of [`Weights::read`].
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// The target type of the cast.
    pub dtype: Dtype,
    /// Keep quantised matrices quantised, instead of dequantising them on reading.
    pub keep_quantized: bool,
}

/// A model's tensors by checkpoint name, all of one type.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, Array>,
    quantization: Option<QuantizationMap>,
    folder: PathBuf,
}

impl Weights {
    /// Reads every tensor of a checked checkpoint. At most one tensor exists twice, while it is
    /// cast or dequantised. `progress` receives the bytes read so far and the total.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file changed or cannot be read, [`Error::Config`] for a bad
    /// `quantization` block, [`Error::Memory`] if the weights do not fit into the memory that the
    /// system has left, [`Error::Mlx`] if MLX fails.
    pub fn read(
        checkpoint: &Checkpoint,
        config: &Config,
        options: ReadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let never = CancelHandle::default();
        Self::read_cancellable(checkpoint, config, options, &never, progress)
    }

    /// Like [`read`](Self::read); `cancel` ends it before the next tensor.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::Cancelled`].
    pub fn read_cancellable(
        checkpoint: &Checkpoint,
        config: &Config,
        options: ReadOptions,
        cancel: &CancelHandle,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        Allocation::of(checkpoint, config, options, Device::current()?)?.check_fits(
            checkpoint.folder(),
            options.dtype,
            0,
        )?;
        // Dropped after the tensors that are cast.
        let _reading = WeightReading::begin()?;
        let total = checkpoint.bytes() as u64;
        let mut readers = Readers::open(checkpoint)?;
        let mut weights = Self {
            tensors: HashMap::with_capacity(checkpoint.tensors().len()),
            quantization: config.quantization_map()?,
            folder: checkpoint.folder().to_path_buf(),
        };
        let mut under_way = VecDeque::new();
        let mut done = 0;
        progress(0, total);
        for (name, stored) in checkpoint.tensors() {
            cancel.check()?;
            let (stem, part) = name.rsplit_once('.').unwrap_or((name, ""));
            let packing = weights.packing(stem).filter(|_| checkpoint.is_packed(stem));
            let array = match packing {
                Some(_) if !options.keep_quantized && part != "weight" => {
                    done += stored.bytes() as u64;
                    continue;
                }
                Some(quantization) if !options.keep_quantized => {
                    readers.next().expand(stem, quantization, options.dtype)?
                }
                _ => readers.next().cast(name, stored.dtype, options.dtype)?,
            };
            async_eval([&array])?;
            under_way.push_back((name, array, stored.bytes() as u64));
            if under_way.len() >= readers.count() {
                weights.finish(under_way.pop_front(), &mut done)?;
                progress(done, total);
            }
            pause_point(cancel, || {
                let arrays = under_way.iter().map(|(_, array, _)| array);
                Ok(transforms::eval(arrays)?)
            })?;
        }
        while !under_way.is_empty() {
            weights.finish(under_way.pop_front(), &mut done)?;
            progress(done, total);
        }
        Ok(weights)
    }

    /// Waits for a tensor in progress.
    fn finish(&mut self, tensor: Option<(&String, Array, u64)>, done: &mut u64) -> Result<()> {
        if let Some((name, array, bytes)) = tensor {
            array.eval()?;
            self.tensors.insert(name.clone(), array);
            *done += bytes;
        }
        Ok(())
    }

    /// Wraps tensors made in memory, for tests and training.
    pub fn from_tensors(tensors: HashMap<String, Array>) -> Self {
        Self {
            tensors,
            quantization: None,
            folder: "weights".into(),
        }
    }

    /// Takes the matrix `name` (its tensor's name without `.weight`) of shape `[rows, width]`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub(crate) fn take_matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Matrix> {
        let (weight, scales) = (format!("{name}.weight"), format!("{name}.scales"));
        let Some(quantization) = self
            .packing(name)
            .filter(|_| self.tensors.contains_key(&scales))
        else {
            return Ok(Matrix::Dense(self.take(&weight, &[rows, width])?));
        };
        let groups = quantization.scales_shape(rows, width);
        let biases = if quantization.has_biases() {
            Some(self.take(&format!("{name}.biases"), &groups)?)
        } else {
            None
        };
        Ok(Matrix::Quantized(QuantizedMatrix {
            weight: self.take(&weight, &quantization.packed_shape(rows, width))?,
            scales: self.take(&scales, &groups)?,
            biases,
            quantization,
        }))
    }

    fn packing(&self, name: &str) -> Option<Quantization> {
        self.quantization.as_ref().and_then(|map| map.layer(name))
    }

    /// Takes a tensor out and checks its shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let Some(array) = self.tensors.remove(name) else {
            return Err(Error::MissingTensor {
                path: self.folder.clone(),
                name: name.into(),
                shape: shape.into(),
            });
        };
        let found: Vec<usize> = array
            .shape()
            .iter()
            .map(|&n| n.unsigned_abs() as usize)
            .collect();
        if found != shape {
            return Err(Error::TensorShape {
                path: self.folder.clone(),
                name: name.into(),
                expected: shape.into(),
                found,
            });
        }
        Ok(array)
    }
}
