//! The reason in an error of `mlx-rs`, whose own text adds paths of the machine that built MLX.

use mlx_rs::error::{AsSliceError, ConversionError, Exception};

/// MLX's reason for `exception`, in one line.
pub(crate) fn reason(exception: &Exception) -> String {
    explained(without_location(exception.what()))
}

/// Names the file that MLX did not find or could not load for its GPU.
fn explained(reason: String) -> String {
    if reason.contains("metallib") || reason.contains("Unable to load kernel") {
        format!("the GPU kernels of MLX, mlx.metallib, cannot be used: {reason}")
    } else {
        reason
    }
}

/// The reason for a result that could not be read, in one line.
pub(crate) fn unreadable(error: &ConversionError) -> String {
    match error {
        ConversionError::Exception(exception)
        | ConversionError::ArraySlice(AsSliceError::Exception(exception)) => reason(exception),
        other => without_location(&other.to_string()),
    }
}

/// `message` in one line, without the ` at file:line` with which mlx-c ends it.
fn without_location(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_location = |text: &str| {
        let number = text.rsplit_once(':').map(|(_, number)| number);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    match line.rsplit_once(" at ") {
        Some((reason, location)) if is_location(location) => reason.to_owned(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn an_mlx_error_is_its_reason_in_one_line() {
        for (message, expected) in [
            ("[load] failed at /build/mlx/c/ops.cpp:123", "[load] failed"),
            (
                "[load] no file at all at C:\\my mlx\\c.cpp:7",
                "[load] no file at all",
            ),
            ("[add] a\n  b at 3", "[add] a b at 3"),
            ("stopped at row:x", "stopped at row:x"),
            (
                "Failed to load the default metallib. library not found at /b/c.cpp:9",
                "the GPU kernels of MLX, mlx.metallib, cannot be used: Failed to load the default \
                 metallib. library not found",
            ),
            ("", ""),
        ] {
            assert_eq!(reason(&Exception::custom(message)), expected);
        }
        let row = |length: i32| mlx_rs::Array::zeros::<f32>(&[length]).unwrap();
        let error = Error::from(row(2).add(row(3)).unwrap_err()).to_string();
        let expected = "mlx: [broadcast_shapes] Shapes (2) and (3) cannot be broadcast.";
        assert_eq!(error, expected);
        let error = Error::from(row(2).to_vec_exact::<u32>().unwrap_err()).to_string();
        assert!(
            error.starts_with("mlx: ") && !error.contains(".rs:"),
            "{error}"
        );
    }
}
