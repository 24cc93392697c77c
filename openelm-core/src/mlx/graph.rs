//! The operations of a graph before it is evaluated, with the dtypes of their arrays, for tests.

use std::{cell::RefCell, collections::BTreeMap, ffi::CString};

use mlx_rs::Array;
use openelm_testing::TempDir;

use super::ffi;

/// An operation, such as `Matmul`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
}

/// Dtype and shape of an array.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
}

/// The operations that `arrays` still need.
pub(crate) fn operations(arrays: &[&Array]) -> Vec<Operation> {
    let folder = TempDir::new();
    let path = folder.join("graph");
    let name = CString::new(path.to_str().unwrap()).unwrap();
    ffi::print_graph(arrays, &name).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let is_operation = |line: &&str| line.contains(" -> ");
    text.lines().filter(is_operation).map(operation).collect()
}

/// Casts from 16 bits to float32: the number for each shape.
pub(crate) fn widened(operations: &[Operation]) -> BTreeMap<Vec<usize>, usize> {
    let mut counts = BTreeMap::new();
    for operation in operations {
        if let ([input], [output]) = (&operation.inputs[..], &operation.outputs[..])
            && input.dtype.ends_with("float16")
            && output.dtype == "float32"
        {
            *counts.entry(output.shape.clone()).or_default() += 1;
        }
    }
    counts
}

/// The operations called one of `names` with a float32 result.
pub(crate) fn float32_results<'o>(
    operations: &'o [Operation],
    names: &[&str],
) -> Vec<&'o Operation> {
    let is_float32 = |value: &Value| value.dtype == "float32";
    let found = operations
        .iter()
        .filter(|o| names.contains(&o.name.as_str()) && o.outputs.iter().any(is_float32));
    found.collect()
}

/// Casts to float32 in an RMSNorm of 16 bits: none on a GPU, where it is one kernel.
pub(crate) fn casts_of_a_norm() -> usize {
    let x = Array::from_slice(&[1.0_f32; 8], &[1, 8]);
    let x = x.as_dtype(mlx_rs::Dtype::Bfloat16).unwrap();
    x.eval().unwrap();
    let norm = mlx_rs::fast::rms_norm(&x, None, 1e-6).unwrap();
    widened(&operations(&[&norm])).values().sum()
}

/// Calls `work` and returns the operations of every evaluation that it starts.
pub(crate) fn recorded(work: impl FnOnce()) -> Vec<Vec<Operation>> {
    RECORD.replace(Some(Vec::new()));
    work();
    RECORD.replace(None).unwrap_or_default()
}

/// Adds the operations of `arrays`, which are evaluated next, to this thread's record.
pub(super) fn record(arrays: Vec<&Array>) -> Vec<&Array> {
    RECORD.with_borrow_mut(|record| {
        if let Some(graphs) = record {
            graphs.push(operations(&arrays));
        }
    });
    arrays
}

thread_local! {
    static RECORD: RefCell<Option<Vec<Vec<Operation>>>> = const { RefCell::new(None) };
}

/// A line such as `Multiply A [(2,3), bfloat16], B [(), float32] -> C [(2,3), float32]`.
fn operation(line: &str) -> Operation {
    let (left, right) = line.split_once(" -> ").unwrap();
    Operation {
        name: left.split(' ').next().unwrap().to_owned(),
        inputs: values(left),
        outputs: values(right),
    }
}

fn values(text: &str) -> Vec<Value> {
    let parts = text.split("[(").skip(1).map(|part| {
        let (shape, rest) = part.split_once("), ").unwrap();
        let sides = shape.split(',').filter(|side| !side.is_empty());
        Value {
            shape: sides.map(|side| side.parse().unwrap()).collect(),
            dtype: rest.split(']').next().unwrap().to_owned(),
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_the_dtypes_and_shapes_of_its_arrays() {
        let x = Array::from_slice(&[1.0_f32; 6], &[2, 3]);
        let half = x.as_dtype(mlx_rs::Dtype::Bfloat16).unwrap();
        half.eval().unwrap();
        let product = half.multiply(&x).unwrap();
        let found = operations(&[&product]);
        let value = |dtype: &str| Value {
            dtype: dtype.to_owned(),
            shape: vec![2, 3],
        };
        let multiply = found.iter().find(|o| o.name == "Multiply").unwrap();
        assert_eq!(multiply.outputs, [value("float32")]);
        let cast = found.iter().find(|o| o.name == "AsType").unwrap();
        assert_eq!(
            (&cast.inputs[..], &cast.outputs[..]),
            (&[value("bfloat16")][..], &[value("float32")][..])
        );
        assert_eq!(widened(&found), [(vec![2, 3], 1)].into());
        assert_eq!(float32_results(&found, &["Multiply", "Add"]), [multiply]);
        product.eval().unwrap();
        assert_eq!(operations(&[&product]), []);
    }
}
