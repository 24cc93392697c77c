//! The number of kernels that a graph launches, for tests.

use mlx_rs::Array;

use super::ffi;

/// Primitives that only view their argument on a GPU, as in `bench/launches.py`.
const VIEWS: [&str; 15] = [
    "AsStrided",
    "Broadcast",
    "BroadcastAxes",
    "Copy",
    "ExpandDims",
    "Flatten",
    "NumberOfElements",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "StopGradient",
    "Transpose",
    "Unflatten",
    "View",
];

/// The kernels that an evaluation of `outputs` launches. MLX's CPU backend has several for a norm,
/// a rotary embedding and attention, a GPU one.
pub(crate) fn launches(outputs: &[Array]) -> usize {
    let names = ffi::primitives(outputs);
    let is_launch = |name: &&String| !VIEWS.contains(&name.as_str());
    names.iter().filter(is_launch).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_and_evaluated_arrays_launch_nothing() {
        let x = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
        let sum = x.add(&x).unwrap();
        let product = sum.t().multiply(&sum).unwrap().reshape(&[4]).unwrap();
        assert_eq!(launches(&[product.clone(), sum.clone()]), 2);
        sum.eval().unwrap();
        assert_eq!(launches(&[product]), 1);
    }
}
