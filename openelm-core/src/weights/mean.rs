//! The mean of tensors.

use mlx_rs::{Array, Dtype};

use crate::error::Result;

/// The arithmetic mean of arrays of one shape, summed in f64 and rounded once to f32, as in CoreNet's
/// `average_ckpts`. Waits for the device.
pub(crate) fn mean(arrays: impl Iterator<Item = Result<Array>>) -> Result<Array> {
    let (mut sums, mut shape, mut count): (Vec<f64>, _, _) = (Vec::new(), Vec::new(), 0.0);
    for array in arrays {
        let array = array?;
        shape = array.shape().to_vec();
        let values = array.as_dtype(Dtype::Float32)?.to_vec_exact::<f32>()?;
        sums.resize(values.len(), 0.0);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += f64::from(value);
        }
        count += 1.0;
    }
    let means: Vec<f32> = sums.iter().map(|sum| (sum / count) as f32).collect();
    Ok(Array::from_slice(&means, &shape))
}
