//! Reads a checked checkpoint into MLX arrays, one tensor at a time.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
};

use mlx_rs::{
    Array,
    transforms::{self, async_eval},
};

use super::{
    allocation::Allocation,
    checkpoint::Checkpoint,
    parallel_reader::Readers,
    stored_tensor::{StoredDtype, StoredTensor},
};
use crate::{
    cancel::CancelHandle,
    config::Config,
    error::{Error, Result},
    gate::pause_point,
    mlx::{
        Device, Dtype, Matrix, Quantization, QuantizationMap, QuantizedMatrix,
        cache_policy::WeightReading, primitives::CpuPrimitives,
    },
};

/// Options of [`Weights::read`].
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// The target type of the cast.
    pub dtype: Dtype,
    /// Keep quantised matrices quantised, instead of dequantising them on reading. For a computation
    /// in float32 on a CPU with products of its own (Linux on x86-64 with AVX2), also keep 16-bit
    /// matrices in 16 bits.
    pub keep_quantized: bool,
}

impl ReadOptions {
    /// True if 16-bit matrices stay in 16 bits.
    pub(crate) fn keeps_half_precision(&self, device: Device) -> bool {
        let is_float32 = self.dtype == Dtype::Float32;
        self.keep_quantized && is_float32 && CpuPrimitives::of(device).is_some()
    }

    /// The type that the floating-point tensor `stored` becomes: of matrices, and of their scales,
    /// the stored one if it stays.
    pub(crate) fn dtype_of(&self, stored: &StoredTensor, keeps_half_precision: bool) -> Dtype {
        match stored.dtype {
            StoredDtype::Float(dtype) if keeps_half_precision && stored.shape.len() == 2 => dtype,
            _ => self.dtype,
        }
    }
}

/// A model's tensors by checkpoint name, all of one type but for matrices that stay in 16 bits.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, Array>,
    quantization: Option<QuantizationMap>,
    folder: PathBuf,
    /// Matrices in 16 bits are for activations in f32.
    keeps_half_precision: bool,
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
            keeps_half_precision: options.keeps_half_precision(Device::current()?),
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
                _ => {
                    let dtype = options.dtype_of(stored, weights.keeps_half_precision);
                    readers.next().cast(name, stored.dtype, dtype)?
                }
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
            keeps_half_precision: false,
        }
    }

    /// Wraps matrices by name, as a checkpoint stores them, and other tensors of type f32, for
    /// activations in f32.
    pub(crate) fn as_stored(
        matrices: impl IntoIterator<Item = (String, Matrix)>,
        mut tensors: HashMap<String, Array>,
    ) -> Self {
        let mut quantization: Option<QuantizationMap> = None;
        for (name, matrix) in matrices {
            match matrix {
                Matrix::Dense(values) | Matrix::Stored(values) => {
                    tensors.insert(format!("{name}.weight"), values);
                }
                Matrix::Quantized(packed) => {
                    let map = quantization
                        .get_or_insert_with(|| QuantizationMap::uniform(packed.quantization));
                    map.set(&name, Some(packed.quantization));
                    tensors.insert(format!("{name}.weight"), packed.weight);
                    tensors.insert(format!("{name}.scales"), packed.scales);
                    tensors.extend(
                        packed
                            .biases
                            .map(|biases| (format!("{name}.biases"), biases)),
                    );
                }
            }
        }
        Self {
            quantization,
            keeps_half_precision: true,
            ..Self::from_tensors(tensors)
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
            let values = self.take(&weight, &[rows, width])?;
            return Ok(if self.keeps_half_precision {
                Matrix::floating(values, Dtype::Float32)
            } else {
                Matrix::Dense(values)
            });
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
