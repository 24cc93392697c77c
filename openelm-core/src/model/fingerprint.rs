//! A fingerprint of a model with its active adapters, for files of keys and values.

use mlx_rs::{Array, Dtype as MlxDtype};

use super::model::Model;
use crate::{error::Result, mlx::Matrix};

impl Model {
    /// A hexadecimal number that other weights, other active adapters, other strengths and another
    /// dtype change: a hash of the norms, of the first and the last row of each matrix, and of the
    /// adapters. It is no protection against a forgery.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::error::Error::Mlx).
    pub fn fingerprint(&self) -> Result<String> {
        let config = self.config();
        let mut hash = Fnv::new();
        hash.text(&format!(
            "{} {} {} {}",
            self.dtype(),
            config.head_dim(),
            config.rope_freq_constant(),
            config.rms_norm_eps()
        ));
        let mut parts: Vec<(String, Array)> = Vec::new();
        let dtype = self.dtype();
        // The visits need an owned model; a clone shares the weights.
        let mut model = self.clone();
        model.visit_linears(&mut |name, linear| {
            let rows = |rows: i32| Array::from_slice(&[0, rows - 1], &[2]);
            let part = match &linear.matrix {
                Matrix::Dense(matrix) | Matrix::Stored(matrix) => {
                    let rows = matrix.take_axis(rows(matrix.dim(0)), 0)?;
                    rows.as_dtype(dtype.mlx())?
                }
                Matrix::Quantized(matrix) => {
                    let rows = rows(matrix.weight.dim(0));
                    matrix.take_rows(&rows)?.expand(dtype)?
                }
            };
            parts.push((name.to_owned(), part));
            Ok(())
        })?;
        model.visit_norms(&mut |name, weight| {
            parts.push((name.to_owned(), weight.clone()));
            Ok(false)
        })?;
        for (name, strength) in &self.adapters.active {
            let adapters = self.adapters.all.iter().filter(|all| all.name == *name);
            for adapter in adapters {
                let mut modules: Vec<_> = adapter.modules.iter().collect();
                modules.sort_by_key(|(matrix, _)| *matrix);
                for (matrix, (module, _)) in modules {
                    let scale = module.scale * strength;
                    let place = format!("{matrix} {:08x}", scale.to_bits());
                    let arrays = [&module.lora_a, &module.lora_b];
                    let arrays = arrays.into_iter().chain(&module.m);
                    parts.extend(arrays.map(|array| (place.clone(), array.clone())));
                }
            }
        }
        for (name, array) in &parts {
            hash.text(&format!("{name} {:?}", array.shape()));
            let bytes = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
            hash.bytes(bytes.try_as_slice::<u8>().map_err(unreadable)?);
        }
        Ok(format!("{:032x}", hash.0))
    }
}

fn unreadable(error: impl std::fmt::Display) -> crate::error::Error {
    mlx_rs::error::Exception::custom(format!("a weight cannot be read: {error}")).into()
}

/// The 128-bit hash FNV-1a.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul((1 << 88) | 0x13b);
        }
    }

    /// Adds a text and its end.
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0xff]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fnv_1a() {
        let mut hash = Fnv::new();
        hash.bytes(b"a");
        assert_eq!(hash.0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
