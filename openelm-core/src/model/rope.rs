//! Rotary position embedding as CoreNet computes it (`rotary_embeddings.py`): the whole head is
//! rotated in pairs `(j, j + head_dim/2)` by `position * base^(-2j/head_dim)`, in f32.
//!
//! On a GPU, MLX's fused kernel rotates by the periods `base^(2j/head_dim)`: with `base` alone its
//! angles differ from CoreNet's by up to 6e-4. MLX has no such kernel for the CPU and would compute
//! the same table for each layer's queries and keys, so on a CPU one table is shared by the step.

use mlx_rs::{Array, Dtype, fast, ops::concatenate};

use super::{forward_context::Segment, split::split};
use crate::{error::Result, mlx::Device};

/// Rotation angles of one model.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    head_dim: usize,
    /// `base^(-2j/head_dim)`, rounded to f32 at the same points as in CoreNet.
    inverse_periods: Vec<f32>,
    periods: Array,
    fused: bool,
}

/// The rotation of one forward pass over `L` tokens.
#[derive(Debug)]
pub(crate) enum Rotation<'a> {
    /// Input of MLX's kernel: positions `offset .. offset + L`.
    Fused {
        head_dim: i32,
        periods: &'a Array,
        offset: i32,
    },
    /// Input of MLX's kernel for several sequences: the position of each token, i32 `[L]`.
    FusedEach {
        head_dim: i32,
        periods: &'a Array,
        positions: Array,
    },
    /// Cosines and sines, f32 `[L, 1, head_dim/2]`.
    Table { cos: Array, sin: Array },
}

impl Rope {
    pub(crate) fn new(head_dim: usize, base: f64, device: Device) -> Self {
        let periods: Vec<f32> = (0..head_dim / 2)
            .map(|j| base.powf((2 * j) as f64 / head_dim as f64) as f32)
            .collect();
        Self {
            head_dim,
            inverse_periods: periods.iter().map(|period| 1.0 / period).collect(),
            periods: Array::from_slice(&periods, &[periods.len() as i32]),
            fused: device == Device::Gpu,
        }
    }

    /// The rotation of the positions of `segments`, one after the other.
    pub(super) fn at(&self, segments: &[Segment]) -> Rotation<'_> {
        let (head_dim, periods) = (self.head_dim as i32, &self.periods);
        let positions = segments
            .iter()
            .flat_map(|segment| segment.offset..segment.offset + segment.length);
        if self.fused {
            if let [segment] = segments {
                return Rotation::Fused {
                    head_dim,
                    periods,
                    offset: segment.offset as i32,
                };
            }
            let positions: Vec<i32> = positions.map(|position| position as i32).collect();
            return Rotation::FusedEach {
                head_dim,
                periods,
                positions: Array::from_slice(&positions, &[positions.len() as i32]),
            };
        }
        let length: usize = segments.iter().map(|segment| segment.length).sum();
        let angles = positions.flat_map(|position| {
            self.inverse_periods
                .iter()
                .map(move |f| position as f32 * f)
        });
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        let shape = [length as i32, 1, (self.head_dim / 2) as i32];
        Rotation::Table {
            cos: Array::from_slice(&cos, &shape),
            sin: Array::from_slice(&sin, &shape),
        }
    }
}

impl Rotation<'_> {
    /// Rotates `x` `[B, L, H, head_dim]` and returns it as `[B, H, L, head_dim]` in its type.
    pub(crate) fn apply(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Fused {
                head_dim,
                periods,
                offset,
            } => {
                let x = x.transpose_axes(&[0, 2, 1, 3])?;
                Ok(fast::rope(
                    &x, *head_dim, false, None, 1.0, *offset, *periods,
                )?)
            }
            // The kernel has one offset per sequence of a batch: each token is a sequence.
            Self::FusedEach {
                head_dim,
                periods,
                positions,
            } => {
                let x = x.transpose_axes(&[1, 2, 0, 3])?;
                let rotated =
                    fast::rope_dynamic(&x, *head_dim, false, None, 1.0, positions, *periods)?;
                Ok(rotated.transpose_axes(&[2, 1, 0, 3])?)
            }
            Self::Table { cos, sin } => {
                let dtype = x.dtype();
                let x = if dtype == Dtype::Float32 {
                    x.clone()
                } else {
                    x.as_dtype(Dtype::Float32)?
                };
                let [left, right] = split(&x, -1)?;
                let rotated = concatenate(
                    &[
                        left.multiply(cos)?.subtract(right.multiply(sin)?)?,
                        right.multiply(cos)?.add(left.multiply(sin)?)?,
                    ],
                    -1,
                )?;
                let rotated = rotated.transpose_axes(&[0, 2, 1, 3])?;
                Ok(if dtype == Dtype::Float32 {
                    rotated
                } else {
                    rotated.as_dtype(dtype)?
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_rs::ops::indexing::TryIndexOp;
    use serde::Deserialize;

    /// CoreNet's cosines and sines at one position, written by `parity/fixtures.py`.
    #[derive(Deserialize)]
    struct Table {
        head_dim: usize,
        base: f64,
        position: usize,
        cos: Vec<f32>,
        sin: Vec<f32>,
    }

    #[derive(Deserialize)]
    struct Fixtures {
        rope: Vec<Table>,
    }

    const DEVICES: [Device; 2] = [Device::Cpu, Device::Gpu];

    fn segment(offset: usize, length: usize) -> Segment {
        Segment { offset, length }
    }

    fn tables() -> Vec<Table> {
        let text = include_str!("../../tests/fixtures/parity.json");
        serde_json::from_str::<Fixtures>(text).unwrap().rope
    }

    /// `rope` applied to `values` `[1, 1, 1, head_dim]` at `position`, when the pass begins
    /// `before` positions earlier.
    fn rotate(rope: &Rope, values: &[f32], position: usize, before: usize) -> Vec<f32> {
        let (length, width) = (before + 1, values.len());
        let x = Array::from_slice(&values.repeat(length), &[1, length as i32, 1, width as i32]);
        let rotated = rope.at(&[segment(position - before, length)]);
        let rotated = rotated.apply(&x).unwrap();
        assert_eq!(rotated.shape(), [1, 1, length as i32, width as i32]);
        flat(&rotated)[before * width..].to_vec()
    }

    /// The values in f32, in the order of the axes, not of memory.
    fn flat(array: &Array) -> Vec<f32> {
        let array = array.flatten(None, None).unwrap();
        array
            .as_dtype(Dtype::Float32)
            .unwrap()
            .to_vec_exact::<f32>()
            .unwrap()
    }

    /// The error of an angle's sine. Metal's kernel uses `fast::sin`, whose error is 2^-13 and more
    /// for large angles.
    fn bound() -> f32 {
        match Device::current().unwrap() {
            Device::Cpu => 5e-7,
            Device::Gpu => 5e-4,
        }
    }

    fn assert_near(found: &[f32], expected: impl IntoIterator<Item = f32>, what: &str) {
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= bound(),
                "{what}, {j}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn angles_match_corenet_up_to_position_4000() {
        let tables = tables();
        assert_eq!(tables.len(), 12);
        assert!(tables.iter().any(|table| table.position == 4000));
        for Table {
            head_dim,
            base,
            position,
            cos,
            sin,
        } in tables
        {
            for device in DEVICES {
                let rope = Rope::new(head_dim, base, device);
                let fused = matches!(rope.at(&[segment(0, 1)]), Rotation::Fused { .. });
                assert_eq!(fused, device == Device::Gpu);
                let what = format!("{device}, head_dim {head_dim}, position {position}");
                let half = head_dim / 2;
                assert_eq!((cos.len(), sin.len()), (half, half));
                // (1, 0) is rotated to (cos, sin), and (0, 1) to (-sin, cos).
                let left = [vec![1.0; half], vec![0.0; half]].concat();
                let right = [vec![0.0; half], vec![1.0; half]].concat();
                for before in [0, 1] {
                    let found = rotate(&rope, &left, position, before);
                    assert_eq!(found.len(), head_dim, "{what}");
                    assert_near(&found, cos.iter().chain(&sin).copied(), &what);
                    let found = rotate(&rope, &right, position, before);
                    let turned = sin.iter().map(|x| -x).chain(cos.iter().copied());
                    assert_near(&found, turned, &what);
                }
            }
        }
    }

    #[test]
    fn position_0_is_not_rotated() {
        let values: Vec<f32> = (0..64).map(|x| x as f32 - 20.5).collect();
        for device in DEVICES {
            let rope = Rope::new(64, 10_000.0, device);
            assert_eq!(rotate(&rope, &values, 0, 0), values, "{device}");
        }
    }

    #[test]
    fn both_forms_rotate_equally() {
        let (batch, length, heads, head_dim) = (2, 5, 3, 8);
        let count = batch * length * heads * head_dim;
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
            .collect();
        let x = Array::from_slice(&values, &[batch, length, heads, head_dim]);
        let [cpu, gpu] = DEVICES.map(|device| {
            let rope = Rope::new(head_dim as usize, 10_000.0, device);
            let rotated = rope
                .at(&[segment(1000, length as usize)])
                .apply(&x)
                .unwrap();
            assert_eq!(rotated.shape(), [batch, heads, length, head_dim]);
            flat(&rotated)
        });
        assert_near(&cpu, gpu, "cpu and gpu");
        // Head 2 of sequence 1 at position 1003, pair (1, 5): period 10, 100.3 radians.
        let at = |j: i32| ((length + 3) * heads + 2) * head_dim + j;
        let (left, right) = (values[at(1) as usize], values[at(5) as usize]);
        let (sin, cos) = 100.3_f32.sin_cos();
        let found = cpu[(((heads + 2) * length + 3) * head_dim + 1) as usize];
        assert!((found - (left * cos - right * sin)).abs() < 2e-5, "{found}");
    }

    #[test]
    fn sequences_of_one_pass_have_their_own_positions() {
        let (heads, head_dim) = (3, 8);
        let segments = [segment(5, 2), segment(0, 1), segment(1003, 3)];
        let length = 6;
        let values: Vec<f32> = (0..length * heads * head_dim)
            .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
            .collect();
        let x = Array::from_slice(&values, &[1, length, heads, head_dim]);
        for device in DEVICES {
            let rope = Rope::new(head_dim as usize, 10_000.0, device);
            let rotated = rope.at(&segments).apply(&x).unwrap();
            assert_eq!(rotated.shape(), [1, heads, length, head_dim]);
            let mut start = 0;
            for segment in segments {
                let end = start + segment.length as i32;
                let alone = x.try_index((.., start..end)).unwrap();
                let alone = rope.at(&[segment]).apply(&alone).unwrap();
                let found = rotated.try_index((.., .., start..end)).unwrap();
                assert_eq!(found.shape(), alone.shape());
                assert_near(
                    &flat(&found),
                    flat(&alone),
                    &format!("{device}, {segment:?}"),
                );
                start = end;
            }
        }
    }

    /// In 16 bits the table rotates f32 values and rounds once, like MLX's kernel; MLX's fallback
    /// on a CPU rounds each product.
    #[test]
    fn keeps_16_bit_dtypes() {
        let values: Vec<f32> = (0..64).map(|x| (x as f32 - 30.0) / 16.0).collect();
        let exact = rotate(&Rope::new(64, 10_000.0, Device::Cpu), &values, 1999, 0);
        for (dtype, ulp) in [
            (Dtype::Bfloat16, 2_f32.powi(-7)),
            (Dtype::Float16, 2_f32.powi(-10)),
        ] {
            let x = Array::from_slice(&values, &[1, 1, 1, 64]);
            let x = x.as_dtype(dtype).unwrap();
            for device in DEVICES {
                let rope = Rope::new(64, 10_000.0, device);
                let rotated = rope.at(&[segment(1999, 1)]).apply(&x).unwrap();
                assert_eq!(rotated.dtype(), dtype, "{device}");
                // The largest value is between 2 and 4: half a unit in its last place.
                let bound = if device == Device::Cpu {
                    ulp
                } else {
                    3.0 * ulp
                };
                for (found, exact) in flat(&rotated).iter().zip(&exact) {
                    assert!(
                        (found - exact).abs() <= bound,
                        "{device} {dtype:?}: {found}, {exact}"
                    );
                }
            }
        }
    }
}
