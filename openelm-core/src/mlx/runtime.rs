//! MLX's version, the location of its GPU kernels, and its default device's queue.

use std::path::Path;

use mlx_rs::Array;

use super::{ffi, recovery::faults};
use crate::error::{Error, Result};

/// The version of the loaded MLX library, such as `0.32.2`.
///
/// # Errors
/// [`Error::Mlx`] if MLX reports no version.
pub fn mlx_version() -> Result<String> {
    ffi::version()
}

/// True if MLX's default device runs compiled functions, whose element-wise operations MLX merges
/// into few kernels. On a GPU it compiles them with the system's compiler; on a CPU it runs the C++
/// compiler `g++`, which may be missing.
pub fn compiles() -> bool {
    super::compiles()
}

/// Waits until the default device has finished the work that this thread queued.
///
/// # Errors
/// [`Error::Mlx`] if MLX fails.
pub fn synchronize() -> Result<()> {
    faults::report()?;
    // A stream runs its operations in order.
    Ok(Array::from_int(0).negative()?.eval()?)
}

/// Sets the path of MLX's GPU kernels, `mlx.metallib`. A build for this machine finds the file
/// without this call; an app ships the file and must call this function before any other here.
/// Kernels of another MLX version give undefined results, so the file's name must begin with
/// `mlx-` and the version of the library: `mlx-0.32.2-ios.metallib`.
///
/// # Errors
/// [`Error::MissingFile`] if the file does not exist, [`Error::Option`] if its name has another
/// version or this build has no GPU, [`Error::Mlx`] if MLX refuses the path.
pub fn set_metallib(file: impl AsRef<Path>) -> Result<()> {
    let file = file.as_ref();
    let version = mlx_version()?;
    check_name(file, &version)?;
    if !file.is_file() {
        return Err(Error::missing_file(
            file,
            "the file of MLX's GPU kernels is missing",
        ));
    }
    let path = file.to_str().ok_or_else(|| {
        Error::option(
            "metallib",
            format!("{}: the path is not UTF-8", file.display()),
        )
    })?;
    tell_mlx(path)
}

#[cfg(feature = "metal")]
fn tell_mlx(path: &str) -> Result<()> {
    Ok(mlx_rs::metal::set_metallib_path(path)?)
}

#[cfg(not(feature = "metal"))]
fn tell_mlx(path: &str) -> Result<()> {
    Err(Error::option(
        "metallib",
        format!("{path}: this build runs on the CPU alone and takes no GPU kernels"),
    ))
}

fn check_name(file: &Path, version: &str) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix(&format!("mlx-{version}"));
    let platform = rest.and_then(|rest| rest.strip_suffix(".metallib"));
    // An empty suffix or `-ios`; `mlx-0.32.2.1.metallib` has another version.
    if platform.is_some_and(|platform| platform.is_empty() || platform.starts_with('-')) {
        return Ok(());
    }
    Err(Error::option(
        "metallib",
        format!("expected the kernels of MLX {version}, mlx-{version}-….metallib, found {name}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_of_this_version_only() {
        let taken = |name: &str| check_name(Path::new(name), "0.32.2").is_ok();
        for name in ["mlx-0.32.2.metallib", "/app/mlx-0.32.2-ios.metallib"] {
            assert!(taken(name), "{name}");
        }
        let others = [
            "mlx.metallib",
            "mlx-0.32.20-ios.metallib",
            "mlx-0.32.2.1.metallib",
        ];
        let others = others
            .into_iter()
            .chain(["mlx-0.31.1-ios.metallib", "mlx-0.32.2-ios", ""]);
        for name in others {
            assert!(!taken(name), "{name}");
        }
    }

    #[test]
    fn reports_missing_metallib() {
        let version = mlx_version().unwrap();
        assert!(version.split('.').count() >= 3, "{version}");
        let file = format!("/nowhere/mlx-{version}.metallib");
        let error = set_metallib(&file).unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error}");
        let error = set_metallib("/nowhere/mlx-0.1.0.metallib")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&version) && error.contains("mlx-0.1.0.metallib"),
            "{error}"
        );
    }
}
