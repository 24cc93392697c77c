//! Operations of mlx-c that `mlx-rs` does not offer, as safe functions: quantisation in all modes,
//! groups of processes, MLX's version.
#![allow(unsafe_code, reason = "each call states how it keeps mlx-c's contract")]

use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    sync::Once,
};

use mlx_rs::{Array, Stream, error::Exception};

use super::quantization::{Quantization, QuantizationMode};
use crate::error::Result;

/// The arrays of a quantised matrix.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) weight: &'a Array,
    pub(super) scales: &'a Array,
    pub(super) biases: Option<&'a Array>,
}

/// Quantises a floating-point matrix: weight, scales and, in affine mode, biases.
pub(super) fn quantize(matrix: &Array, quantization: Quantization) -> Result<Vec<Array>> {
    ready();
    let stream = Stream::thread_local_or_default();
    let null = Null::new();
    // SAFETY: every handle is live for the call; `parts` is freed by `taken`; MLX returns exceptions
    // as a status.
    let parts = unsafe {
        let mut parts = mlx_sys::mlx_vector_array_new();
        let status = mlx_sys::mlx_quantize(
            &raw mut parts,
            matrix.as_ptr(),
            some(quantization.group_size()),
            some(quantization.bits()),
            mode(quantization).as_ptr(),
            null.0,
            stream.as_ptr(),
        );
        let arrays = taken(parts);
        (status == 0).then_some(arrays)
    };
    parts.ok_or_else(|| failed("quantize").into())
}

/// Dequantises `parts` to a matrix of type `dtype`.
pub(super) fn dequantize(
    parts: Parts<'_>,
    quantization: Quantization,
    dtype: mlx_rs::Dtype,
) -> Result<Array> {
    ready();
    let stream = Stream::thread_local_or_default();
    let null = Null::new();
    let dtype = mlx_sys::mlx_optional_dtype {
        value: dtype.into(),
        has_value: true,
    };
    // SAFETY: as above; the result handle is owned by the returned array.
    unsafe {
        let mut result = mlx_sys::mlx_array_new();
        let status = mlx_sys::mlx_dequantize(
            &raw mut result,
            parts.weight.as_ptr(),
            parts.scales.as_ptr(),
            parts.biases.map_or(null.0, Array::as_ptr),
            some(quantization.group_size()),
            some(quantization.bits()),
            mode(quantization).as_ptr(),
            null.0,
            dtype,
            stream.as_ptr(),
        );
        own(result, status, "dequantize")
    }
}

/// `x · Wᵀ` of the quantised matrix `W` `[rows, width]`, `[..., width]` to `[..., rows]`; `x · W`,
/// `[..., rows]` to `[..., width]`, if not `transposed`.
pub(super) fn quantized_matmul(
    x: &Array,
    parts: Parts<'_>,
    quantization: Quantization,
    transposed: bool,
) -> Result<Array> {
    ready();
    let stream = Stream::thread_local_or_default();
    let null = Null::new();
    // SAFETY: as above.
    unsafe {
        let mut result = mlx_sys::mlx_array_new();
        let status = mlx_sys::mlx_quantized_matmul(
            &raw mut result,
            x.as_ptr(),
            parts.weight.as_ptr(),
            parts.scales.as_ptr(),
            parts.biases.map_or(null.0, Array::as_ptr),
            transposed,
            some(quantization.group_size()),
            some(quantization.bits()),
            mode(quantization).as_ptr(),
            stream.as_ptr(),
        );
        own(result, status, "quantized_matmul")
    }
}

/// True if the values of `array` have been computed.
pub(super) fn is_available(array: &Array) -> Result<bool> {
    ready();
    let mut available = false;
    // SAFETY: the handle is live for the call, which writes one boolean.
    let status = unsafe { mlx_sys::_mlx_array_is_available(&raw mut available, array.as_ptr()) };
    match status {
        0 => Ok(available),
        _ => Err(failed("the state of an array").into()),
    }
}

/// Writes the operations that `arrays` still need to `path`: MLX's `print_graph`.
#[cfg(test)]
pub(super) fn print_graph(arrays: &[&Array], path: &CStr) -> Result<()> {
    unsafe extern "C" {
        fn fopen(path: *const c_char, mode: *const c_char) -> *mut mlx_sys::FILE;
        fn fclose(file: *mut mlx_sys::FILE) -> std::ffi::c_int;
    }
    ready();
    // SAFETY: the handles and the file are live until they are freed below, once; a file that
    // cannot be opened is not used.
    unsafe {
        let file = fopen(path.as_ptr(), c"w".as_ptr());
        if file.is_null() {
            return Err(failed("opening the file").into());
        }
        let (namer, outputs) = (
            mlx_sys::mlx_node_namer_new(),
            mlx_sys::mlx_vector_array_new(),
        );
        for array in arrays {
            mlx_sys::mlx_vector_array_append_value(outputs, array.as_ptr());
        }
        let status = mlx_sys::mlx_print_graph(file, namer, outputs);
        mlx_sys::mlx_vector_array_free(outputs);
        mlx_sys::mlx_node_namer_free(namer);
        fclose(file);
        match status {
            0 => Ok(()),
            _ => Err(failed("print_graph").into()),
        }
    }
}

/// A group of processes that compute together, MLX's `distributed::Group`.
#[derive(Debug)]
pub(crate) struct ProcessGroup(mlx_sys::mlx_distributed_group);

impl ProcessGroup {
    /// Joins the group that the environment describes, with the first MLX backend that can.
    pub(crate) fn join() -> Result<Self> {
        ready();
        // SAFETY: the handle is empty until the call fills it, and freed only by `drop`.
        unsafe {
            let mut group = Self(mlx_sys::mlx_distributed_group_new());
            match mlx_sys::mlx_distributed_init(&raw mut group.0, true, std::ptr::null()) {
                0 => Ok(group),
                _ => Err(failed("joining the group of processes").into()),
            }
        }
    }

    pub(crate) fn rank(&self) -> usize {
        // SAFETY: the handle belongs to a joined group.
        unsafe { mlx_sys::mlx_distributed_group_rank(self.0) as usize }
    }

    pub(crate) fn size(&self) -> usize {
        // SAFETY: as above.
        unsafe { mlx_sys::mlx_distributed_group_size(self.0) as usize }
    }

    /// The sum of `x` over all processes, returned in each of them.
    pub(crate) fn all_sum(&self, x: &Array) -> Result<Array> {
        self.collective(x, mlx_sys::mlx_distributed_all_sum, "all_sum")
    }

    /// The arrays `x` of all processes, one after the other on the first axis, returned in each of
    /// them.
    pub(crate) fn all_gather(&self, x: &Array) -> Result<Array> {
        self.collective(x, mlx_sys::mlx_distributed_all_gather, "all_gather")
    }

    fn collective(&self, x: &Array, operation: Collective, name: &str) -> Result<Array> {
        ready();
        let stream = Stream::thread_local_or_default();
        // SAFETY: every handle is live for the call; the result handle is owned by the returned
        // array. On a GPU, MLX moves the data to the stream that its backend needs.
        unsafe {
            let mut result = mlx_sys::mlx_array_new();
            let status = operation(&raw mut result, x.as_ptr(), self.0, stream.as_ptr());
            own(result, status, name)
        }
    }
}

/// An operation of a group of processes on an array, from `mlx/c/distributed.h`.
type Collective = unsafe extern "C" fn(
    *mut mlx_sys::mlx_array,
    mlx_sys::mlx_array,
    mlx_sys::mlx_distributed_group,
    mlx_sys::mlx_stream,
) -> std::ffi::c_int;

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: frees the handle made in `join`, once.
        unsafe { mlx_sys::mlx_distributed_group_free(self.0) };
    }
}

/// An absent array argument.
pub(super) struct Null(pub(super) mlx_sys::mlx_array);

impl Null {
    pub(super) fn new() -> Self {
        // SAFETY: makes an empty handle.
        Self(unsafe { mlx_sys::mlx_array_new() })
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        // SAFETY: frees the handle made in `new`, once.
        unsafe { mlx_sys::mlx_array_free(self.0) };
    }
}

/// Key of [`gpu_size`]: the memory that Metal recommends not to exceed, in bytes.
#[cfg(any(target_os = "macos", test))]
pub(super) const WORKING_SET: &CStr = c"max_recommended_working_set_size";

/// A size among the properties of the GPU; `None` without a GPU or such a property.
#[cfg(any(target_os = "macos", test))]
pub(super) fn gpu_size(key: &CStr) -> Option<usize> {
    ready();
    // SAFETY: both handles are live until they are freed below, once; the calls write one number
    // and report failures as a status.
    unsafe {
        let gpu = mlx_sys::mlx_device_new_type(mlx_sys::mlx_device_type__MLX_GPU, 0);
        let mut info = mlx_sys::mlx_device_info_new();
        let mut size = 0;
        let found = mlx_sys::mlx_device_info_get(&raw mut info, gpu) == 0
            && mlx_sys::mlx_device_info_get_size(&raw mut size, info, key.as_ptr()) == 0;
        mlx_sys::mlx_device_info_free(info);
        mlx_sys::mlx_device_free(gpu);
        found.then_some(size)
    }
}

/// Bytes that iOS allows this app to allocate; 0 without a limit.
#[cfg(target_os = "ios")]
pub(super) fn process_available_memory() -> usize {
    unsafe extern "C" {
        /// Of the system's library, since iOS 13.
        fn os_proc_available_memory() -> usize;
    }
    // SAFETY: the function has no arguments and only reads the limits of this process.
    unsafe { os_proc_available_memory() }
}

/// The version of the loaded MLX library.
pub(super) fn version() -> Result<String> {
    ready();
    // SAFETY: the string is live until it is freed, and is copied before.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let status = mlx_sys::mlx_version(&raw mut text);
        let data = mlx_sys::mlx_string_data(text);
        let version = (status == 0 && !data.is_null())
            .then(|| CStr::from_ptr(data).to_string_lossy().into_owned());
        mlx_sys::mlx_string_free(text);
        version.ok_or_else(|| failed("version").into())
    }
}

/// The names of the primitives that an evaluation of `outputs` runs.
#[cfg(test)]
pub(super) fn primitives(outputs: &[Array]) -> Vec<String> {
    unsafe extern "C" {
        fn tmpfile() -> *mut mlx_sys::FILE;
        fn rewind(file: *mut mlx_sys::FILE);
        fn fread(to: *mut c_void, size: usize, count: usize, file: *mut mlx_sys::FILE) -> usize;
        fn fclose(file: *mut mlx_sys::FILE) -> std::ffi::c_int;
    }
    ready();
    let mut text = Vec::new();
    // SAFETY: every handle is live until it is freed below, and `fread` writes at most the size of
    // `part`.
    unsafe {
        let (file, namer) = (tmpfile(), mlx_sys::mlx_node_namer_new());
        let all = mlx_sys::mlx_vector_array_new();
        for output in outputs {
            mlx_sys::mlx_vector_array_append_value(all, output.as_ptr());
        }
        assert!(!file.is_null());
        assert_eq!(mlx_sys::mlx_export_to_dot(file, namer, all), 0);
        rewind(file);
        let mut part = [0_u8; 4096];
        loop {
            let read = fread(part.as_mut_ptr().cast(), 1, part.len(), file);
            text.extend(part.iter().take(read));
            if read == 0 {
                break;
            }
        }
        fclose(file);
        mlx_sys::mlx_vector_array_free(all);
        mlx_sys::mlx_node_namer_free(namer);
    }
    let text = String::from_utf8(text).unwrap();
    let labels = text.split("[label =\"").skip(1);
    let names = labels.map(|label| label.split('"').next().unwrap_or_default().to_owned());
    names.collect()
}

/// Replaces mlx-c's error handler, which ends the process: any fallible call through `mlx-rs` does
/// so. This call uses no GPU, because MLX loads its kernels with the device and their path may not
/// be set yet. Then puts [`remember`] before the handler of `mlx-rs`, which keeps the message for
/// the calls of `mlx-rs` alone.
pub(super) fn ready() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without a GPU there is no path to set: this returns an error and installs the handler.
        #[cfg(feature = "metal")]
        let _ = mlx_rs::metal::metallib_path();
        #[cfg(not(feature = "metal"))]
        let _ = mlx_rs::memory::active_memory();
        // SAFETY: the function lives as long as the process and takes no data.
        unsafe { mlx_sys::mlx_set_error_handler(Some(remember), std::ptr::null_mut(), None) };
    });
}

thread_local! {
    /// MLX's message about the last call of this thread that failed.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

unsafe extern "C" {
    /// The handler of `mlx-rs`.
    fn default_mlx_error_handler(message: *const c_char, data: *mut c_void);
}

/// MLX's error handler: keeps `message` for [`failed`] and passes it on to `mlx-rs`. MLX calls it
/// on the thread of the failed call.
extern "C" fn remember(message: *const c_char, data: *mut c_void) {
    // SAFETY: MLX's message is a string that is live for the call; `mlx-rs` copies it.
    let text = unsafe {
        default_mlx_error_handler(message, data);
        CStr::from_ptr(message).to_string_lossy().into_owned()
    };
    // At the end of a thread the variable may be gone.
    let _ = REASON.try_with(|reason| reason.replace(Some(text)));
}

fn some(value: usize) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int {
        value: value as i32,
        has_value: true,
    }
}

pub(super) fn mode(quantization: Quantization) -> &'static CStr {
    match quantization.mode() {
        QuantizationMode::Affine => c"affine",
        QuantizationMode::Mxfp4 => c"mxfp4",
        QuantizationMode::Mxfp8 => c"mxfp8",
        QuantizationMode::Nvfp4 => c"nvfp4",
    }
}

/// The error of a call that returned a failure, with MLX's reason.
pub(super) fn failed(operation: &str) -> Exception {
    let reason = REASON.with(RefCell::take);
    Exception::custom(reason.unwrap_or_else(|| format!("{operation} failed")))
}

/// # Safety
/// `result` must be a handle that nothing else frees.
pub(super) unsafe fn own(
    result: mlx_sys::mlx_array,
    status: i32,
    operation: &str,
) -> Result<Array> {
    // SAFETY: passed on to the caller.
    let array = unsafe { Array::from_ptr(result) };
    if status == 0 {
        Ok(array)
    } else {
        Err(failed(operation).into())
    }
}

/// The arrays of `vector`, which is freed.
///
/// # Safety
/// `vector` must be a handle that nothing else frees.
pub(super) unsafe fn taken(vector: mlx_sys::mlx_vector_array) -> Vec<Array> {
    // SAFETY: the handle is live until it is freed below, once; the arrays own their handles.
    unsafe {
        let arrays = (0..mlx_sys::mlx_vector_array_size(vector)).map(|i| {
            let mut array = mlx_sys::mlx_array_new();
            mlx_sys::mlx_vector_array_get(&raw mut array, vector, i);
            Array::from_ptr(array)
        });
        let arrays = arrays.collect();
        mlx_sys::mlx_vector_array_free(vector);
        arrays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::quantization::Quantization;

    #[test]
    fn a_system_without_a_gpu_has_no_size_of_it() {
        if crate::mlx::Device::current().unwrap() == crate::mlx::Device::Gpu {
            assert!(gpu_size(WORKING_SET) > Some(1 << 30));
        } else {
            assert_eq!(gpu_size(WORKING_SET), None);
        }
    }

    #[test]
    fn a_failed_call_has_the_reason_of_mlx() {
        let mxfp4 = Quantization::new(QuantizationMode::Mxfp4, None, None).unwrap();
        let matrix = |width: i32| {
            let shape = [32, width];
            Array::from_slice(&vec![0.5_f32; (32 * width) as usize], &shape)
        };
        let packed = quantize(&matrix(64), mxfp4).unwrap();
        let parts = Parts {
            weight: &packed[0],
            scales: &packed[1],
            biases: None,
        };
        let integers = matrix(64).as_dtype(mlx_rs::Dtype::Uint8).unwrap();
        let messages = [
            quantize(&matrix(48), mxfp4).unwrap_err(),
            quantized_matmul(&integers, parts, mxfp4, true).unwrap_err(),
            quantized_matmul(&matrix(32), parts, mxfp4, true).unwrap_err(),
            dequantize(
                Parts {
                    scales: &matrix(64),
                    ..parts
                },
                mxfp4,
                mlx_rs::Dtype::Float32,
            )
            .unwrap_err(),
        ]
        .map(|error| error.to_string());
        for message in &messages {
            assert!(message.starts_with("mlx: ["), "{message}");
            assert!(
                !message.contains(".cpp") && !message.contains(".rs"),
                "{message}"
            );
        }
        assert!(messages[1].contains("uint8"), "{messages:?}");
        // mlx-rs has the reason of its own calls.
        let error = matrix(32).add(matrix(48)).unwrap_err();
        assert!(error.what().contains("broadcast"), "{error}");
    }
}
