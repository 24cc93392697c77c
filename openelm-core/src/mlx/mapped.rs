//! Arrays over memory that MLX does not own: tensors mapped from the weight file.
//!
//! On a CPU, MLX's arrays are plain memory, so a tensor that needs no cast is not copied: its pages
//! are the page cache's, available at once if the file was read before, and shared by all processes
//! that run the model. If MLX cannot use foreign memory (see `setup/native`), it copies the data.
#![allow(unsafe_code)] // Maps files and lends memory to MLX; each block states its contract.

use std::{ffi::c_void, fs::File, num::NonZero, os::unix::fs::FileExt, path::Path, thread};

use memmap2::{MmapMut, MmapOptions};
use mlx_rs::Array;

use crate::error::{Error, Result};

/// Bytes that MLX's CPU arrays need before a tensor: their allocator stores a size there. MLX reads
/// the bytes and does not use the value. In a safetensors file the header precedes all data.
const BEFORE: usize = 8;

/// The `bytes` at `offset` of `file` as an array of the given shape and type. Errors name `path`.
pub(crate) fn map(
    file: &File,
    path: &Path,
    offset: u64,
    bytes: usize,
    shape: &[i32],
    dtype: mlx_rs::Dtype,
) -> Result<Array> {
    let start = offset.saturating_sub(BEFORE as u64);
    let before = (offset - start) as usize;
    // SAFETY: the mapping is private, so no write reaches the file. A program that truncates the
    // file while the model is in use ends this process, as with every mapped file; weight files
    // are replaced by renaming, which is safe.
    let mapping = unsafe {
        MmapOptions::new()
            .offset(start)
            .len(before + bytes)
            .map_copy(file)
    };
    let mapping = mapping.map_err(Error::io(path))?;
    // Read the file from disk now, not page by page during the first token.
    #[cfg(target_os = "linux")]
    match mapping.advise(memmap2::Advice::PopulateRead) {
        // Kernels before 5.14 do not support this advice.
        Err(error) if error.raw_os_error() != Some(22) => return Err(Error::io(path)(error)),
        _ => {}
    }
    let data = mapping.as_ptr().wrapping_add(before);
    // SAFETY: `data` points to `bytes` bytes of the mapping, the size that `shape` and `dtype` have
    // in the checked header.
    unsafe { adopt(mapping, data, shape, dtype) }
}

/// Like [`map`], but reads into memory, on all cores: for data that is not aligned to its type, as
/// MLX writes it.
pub(crate) fn read(
    file: &File,
    path: &Path,
    offset: u64,
    bytes: usize,
    shape: &[i32],
    dtype: mlx_rs::Dtype,
) -> Result<Array> {
    // A mapping begins at a page, so that the data is aligned for any type.
    let mut memory = MmapMut::map_anon(BEFORE + bytes).map_err(Error::io(path))?;
    // Most of the time goes to the faults of small pages. A kernel without large ones refuses this.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    let data = &mut memory[BEFORE..];
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = bytes.div_ceil(threads).max(SMALLEST_SHARE);
    thread::scope(|scope| {
        let parts = data.chunks_mut(share).enumerate().map(|(i, part)| {
            scope.spawn(move || file.read_exact_at(part, offset + (i * share) as u64))
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().try_for_each(|part| match part.join() {
            Ok(read) => read.map_err(Error::io(path)),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let data = memory.as_ptr().wrapping_add(BEFORE);
    // SAFETY: `data` points to `bytes` bytes of the mapping; `shape` and `dtype` have this size by
    // the checked header.
    unsafe { adopt(memory, data, shape, dtype) }
}

/// `values` as an array of the given shape, which must have `values.len() - ROOM` elements: MLX
/// needs the space of the first `ROOM` values.
///
/// # Errors
/// [`Error::Mlx`] if the shape has another number of elements.
pub(crate) fn floats(values: Vec<f32>, shape: &[i32]) -> Result<Array> {
    let elements: usize = shape.iter().map(|&n| n.unsigned_abs() as usize).product();
    if elements + ROOM != values.len() {
        let problem = format!("{} values for an array of shape {shape:?}", values.len());
        return Err(mlx_rs::error::Exception::custom(problem).into());
    }
    let data = values.as_ptr().wrapping_add(ROOM).cast();
    // SAFETY: `data` points to as many floats as the shape has, and moving a vector leaves its
    // elements in place.
    unsafe { adopt(values, data, shape, mlx_rs::Dtype::Float32) }
}

/// The fewest bytes per thread: a thread for fewer costs more than it saves.
const SMALLEST_SHARE: usize = 1 << 20;

/// Number of floats in the bytes before an array.
pub(crate) const ROOM: usize = BEFORE / size_of::<f32>();

/// An array over writable memory that `owner` keeps alive.
///
/// # Safety
/// `data` must point to as many bytes as `shape` and `dtype` need, with [`BEFORE`] more before
/// them; they must belong to `owner`, stay in place when that is moved, and be writable.
unsafe fn adopt<T>(
    owner: T,
    data: *const u8,
    shape: &[i32],
    dtype: mlx_rs::Dtype,
) -> Result<Array> {
    // mlx-c's own error handler ends the process; any fallible call through `mlx-rs` replaces it.
    mlx_rs::memory::active_memory()?;
    let payload = Box::into_raw(Box::new(owner)).cast::<c_void>();
    // SAFETY: by this function's contract; MLX calls `release::<T>` once, when no array uses the
    // memory any more.
    let array = unsafe {
        mlx_sys::mlx_array_new_data_managed_payload(
            data.cast_mut().cast(),
            shape.as_ptr(),
            shape.len() as i32,
            dtype.into(),
            payload,
            Some(release::<T>),
        )
    };
    // SAFETY: the handle is new and not owned elsewhere.
    Ok(unsafe { Array::from_ptr(array) })
}

/// Drops the owner of an array's memory.
///
/// # Safety
/// `payload` must come from `Box::into_raw` of a `T`, and is not used again.
unsafe extern "C" fn release<T>(payload: *mut c_void) {
    // SAFETY: by this function's contract.
    drop(unsafe { Box::from_raw(payload.cast::<T>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempFile;

    #[test]
    fn mapped_array_is_copy_on_write() {
        let values: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = TempFile::new("values", [&[0; 12], &bytes[..]].concat());
        let file = File::open(&path).unwrap();
        let map = |offset, n: usize| {
            map(
                &file,
                &path,
                offset,
                4 * n,
                &[n as i32],
                mlx_rs::Dtype::Float32,
            )
            .unwrap()
        };
        let values_of_file = values;
        let array = map(12, 5000);
        assert_eq!(array.try_as_slice::<f32>().unwrap(), values_of_file);
        // A sole owner's memory may be reused for a result.
        let negated = map(12 + 4 * 1000, 4000).negative().unwrap();
        negated.eval().unwrap();
        assert_eq!(
            negated.try_as_slice::<f32>().unwrap()[..2],
            [-1000.0, -1001.0]
        );
        assert_eq!(array.try_as_slice::<f32>().unwrap()[1000], 1000.0);
        assert_eq!(std::fs::read(&path).unwrap()[12..], bytes);
        let mut values = vec![0.0; ROOM];
        values.extend([1.0, 2.0, 3.0]);
        let lent = floats(values.clone(), &[3]).unwrap();
        assert_eq!(lent.try_as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        assert!(floats(values, &[4]).is_err());
        let moved = read(&file, &path, 12, 20_000, &[5000], mlx_rs::Dtype::Float32).unwrap();
        assert_eq!(moved.try_as_slice::<f32>().unwrap(), values_of_file);
        let error = super::map(&file, &path, 1 << 40, 8, &[2], mlx_rs::Dtype::Float32);
        assert!(error.is_err());
    }
}
