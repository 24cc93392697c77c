//! Tensors that follow from the configuration: rotary frequencies, which some programs store.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use super::stored_tensor::{StoredDtype, StoredTensor};
use crate::{
    config::Config,
    error::{Error, Result},
    mlx::Dtype,
};

/// Largest relative difference of a stored frequency; bfloat16 keeps 8 bits.
const TOLERANCE: f64 = 0.01;

/// True for the name of a buffer of rotary frequencies, `base^(-2 i / head_dim)`.
pub(crate) fn is_inv_freq(name: &str) -> bool {
    name == "inv_freq" || name.ends_with(".inv_freq")
}

/// Checks that a buffer of rotary frequencies has the values of `config`.
pub(super) fn check_inv_freq(name: &str, stored: &StoredTensor, config: &Config) -> Result<()> {
    let count = config.head_dim() / 2;
    let StoredDtype::Float(dtype) = stored.dtype else {
        return Err(Error::TensorDtype {
            path: stored.file.clone(),
            name: name.into(),
            found: stored.dtype.name().into(),
        });
    };
    if stored.shape.iter().product::<usize>() != count {
        return Err(Error::TensorShape {
            path: stored.file.clone(),
            name: name.into(),
            expected: vec![count],
            found: stored.shape.clone(),
        });
    }
    for (i, found) in values(stored, dtype)?.into_iter().enumerate() {
        let exponent = -2.0 * i as f64 / config.head_dim() as f64;
        let expected = config.rope_freq_constant().powf(exponent);
        if ((found - expected) / expected).abs() <= TOLERANCE {
            continue;
        }
        return Err(Error::checkpoint(
            &stored.file,
            format!(
                "tensor `{name}`: value {i} is {found:e}; rope_freq_constant {} gives {expected:e}",
                config.rope_freq_constant()
            ),
        ));
    }
    Ok(())
}

fn values(stored: &StoredTensor, dtype: Dtype) -> Result<Vec<f64>> {
    let io = || Error::io(&stored.file);
    let mut file = File::open(&stored.file).map_err(io())?;
    file.seek(SeekFrom::Start(stored.offset)).map_err(io())?;
    let mut bytes = vec![0; stored.bytes()];
    file.read_exact(&mut bytes).map_err(io())?;
    let pairs = bytes.as_chunks::<2>().0.iter().copied();
    Ok(match dtype {
        Dtype::Float32 => {
            let words = bytes.as_chunks::<4>().0.iter().copied();
            words.map(|word| f32::from_le_bytes(word).into()).collect()
        }
        Dtype::Float16 => pairs
            .map(|pair| half::f16::from_le_bytes(pair).into())
            .collect(),
        Dtype::Bfloat16 => pairs
            .map(|pair| half::bf16::from_le_bytes(pair).into())
            .collect(),
    })
}
