//! `mlx-c-bindings MLX_C OUT [clang argument ...]`: generates Rust declarations of mlx-c's headers.
//!
//! mlx-sys's build script does the same when it builds MLX; the options are copied from it, so that
//! the result equals the declarations in `mlx_sys`.

use std::{env, error::Error, fs, path::PathBuf};

/// On ARM these types and functions come from `mlx/c/half.h`; elsewhere the header omits them and
/// `setup/native` defines them.
const HALF: &str = "
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone)]
pub struct float16_t(pub u16);
pub type bfloat16_t = u16;
unsafe extern \"C\" {
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
}
";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(mlx_c), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: mlx-c-bindings MLX_C OUT [clang argument ...]".into());
    };
    let mlx_c = PathBuf::from(mlx_c);

    let mut headers = fs::read_dir(mlx_c.join("mlx/c"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    headers.retain(|path| path.extension().is_some_and(|extension| extension == "h"));
    headers.sort();

    let mut builder = bindgen::Builder::default()
        .rust_target(bindgen::RustTarget::stable(73, 0).map_err(|e| e.to_string())?)
        .clang_arg(format!("-I{}", mlx_c.display()))
        .clang_args(args)
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    for header in headers {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = builder.generate()?.to_string();

    let half = if bindings.contains("mlx_array_item_float16") {
        ""
    } else {
        HALF
    };
    fs::write(out, bindings + half)?;
    Ok(())
}
