//! The state of a cache by layer, as mlx-lm's cache classes hold it.

use std::collections::BTreeMap;

use mlx_rs::Array;

use super::{
    buffer, kv_cache::KvCache, layer_cache::LayerCache, options::KvCacheOptions, plain::PlainCache,
    quantized::QuantizedCache, rotating::RotatingCache,
};
use crate::{
    config::Config,
    error::Result,
    mlx::{Dtype, Quantization, QuantizedMatrix},
};

/// The state of one layer: arrays and numbers by their place in the state of mlx-lm's class.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    /// mlx-lm's class: `KVCache`, `RotatingKVCache` or `QuantizedKVCache`.
    pub(crate) class: String,
    /// `0` and `1` are keys and values; of a quantised cache, `0.0` to `1.2` their parts.
    pub(crate) arrays: BTreeMap<String, Array>,
    /// `2` is the number of positions, the others depend on the class.
    pub(crate) numbers: BTreeMap<String, i64>,
}

const PLAIN: &str = "KVCache";
const ROTATING: &str = "RotatingKVCache";
const QUANTIZED: &str = "QuantizedKVCache";
const OFFSET: &str = "2";

impl KvCache {
    /// The state of each layer, without room for further positions.
    pub(crate) fn to_states(&self) -> Result<Vec<LayerState>> {
        let states = self.layers.iter().map(|layer| self.state_of(layer));
        states.collect()
    }

    fn state_of(&self, layer: &LayerCache) -> Result<LayerState> {
        let offset = self.offset;
        let used = |part: &Array| buffer::first(part, offset.min(buffer::capacity(part)));
        let number = |place: &str, number: usize| (place.to_owned(), number as i64);
        let mut state = LayerState::default();
        state.numbers.extend([number(OFFSET, offset)]);
        let dense = |buffers: &Option<(Array, Array)>| {
            let arrays = buffers.iter().flat_map(|(k, v)| [("0", k), ("1", v)]);
            let arrays = arrays.map(|(place, array)| Ok((place.to_owned(), used(array)?)));
            arrays.collect::<Result<BTreeMap<_, _>>>()
        };
        match layer {
            LayerCache::Plain(cache) => {
                state.class = PLAIN.into();
                state.arrays = dense(&cache.buffers)?;
            }
            LayerCache::Rotating(cache) => {
                state.class = ROTATING.into();
                state.arrays = dense(&cache.buffers)?;
                state.numbers.extend([
                    number("3", cache.keep),
                    number("4", cache.max_size),
                    number("5", cache.index),
                ]);
            }
            LayerCache::Quantized(cache) => {
                state.class = QUANTIZED.into();
                let matrices = cache.buffers.iter().flat_map(|(k, v)| [("0", k), ("1", v)]);
                for (place, matrix) in matrices {
                    for (part, array) in matrix.arrays().enumerate() {
                        state.arrays.insert(format!("{place}.{part}"), used(array)?);
                    }
                }
                state.numbers.extend([
                    number("3", cache.quantization.group_size()),
                    number("4", cache.quantization.bits()),
                ]);
            }
        }
        Ok(state)
    }

    /// The cache with the state of each layer, for a model that computes in `dtype`.
    ///
    /// # Errors
    /// The problem, with the layer.
    pub(crate) fn from_states(
        config: &Config,
        dtype: Dtype,
        states: Vec<LayerState>,
    ) -> Result<Self, String> {
        let expected = config.num_transformer_layers();
        if states.len() != expected {
            let found = states.len();
            return Err(format!("expected {expected} layers, found {found}"));
        }
        let mut kind: Option<(KvCacheOptions, usize)> = None;
        let mut layers = Vec::with_capacity(expected);
        for (index, mut state) in states.into_iter().enumerate() {
            let width = config.head_dim();
            let heads = config.layers().get(index).map_or(0, |layer| layer.kv_heads);
            let (options, offset) = state
                .kind(width)
                .map_err(|problem| format!("layer {index}: {problem}"))?;
            let found = *kind.get_or_insert((options, offset));
            if found != (options, offset) {
                return Err(format!(
                    "layer {index} differs from layer 0 in kind or length"
                ));
            }
            let layer = state
                .layer(&options, offset, [heads, width], dtype)
                .map_err(|problem| format!("layer {index}: {problem}"))?;
            layers.push(layer);
        }
        let (options, offset) = kind.unwrap_or_default();
        Ok(Self {
            layers,
            offset,
            options,
        })
    }
}

impl LayerState {
    /// The kind and the number of positions.
    fn kind(&self, head_dim: usize) -> Result<(KvCacheOptions, usize), String> {
        let mut options = KvCacheOptions::default();
        match &*self.class {
            PLAIN => {}
            ROTATING => {
                options.keep = self.number("3")?;
                options.max_kv_size = Some(self.number("4")?);
            }
            QUANTIZED => {
                options.kv_group_size = self.number("3")?;
                options.kv_bits = Some(self.number("4")?);
            }
            other => {
                return Err(format!(
                    "expected the class {PLAIN}, {ROTATING} or {QUANTIZED}, found {other}"
                ));
            }
        }
        let checked = options.check_for(head_dim);
        checked.map_err(|error| error.to_string())?;
        Ok((options, self.number(OFFSET)?))
    }

    /// The cache of a layer with `heads` keys of `width` numbers.
    fn layer(
        &mut self,
        options: &KvCacheOptions,
        offset: usize,
        [heads, width]: [usize; 2],
        dtype: Dtype,
    ) -> Result<LayerCache, String> {
        let quantization = options.quantization().map_err(|error| error.to_string())?;
        let cache = if let Some(quantization) = quantization {
            let mut capacity = None;
            let [keys, values] = ["0", "1"].map(|place| {
                let parts = [heads, width];
                self.matrix(place, quantization, parts, dtype, &mut capacity)
            });
            check_capacity(capacity, offset)?;
            LayerCache::Quantized(QuantizedCache {
                quantization,
                buffers: Some((keys?, values?)),
            })
        } else {
            let mut capacity = None;
            let shape = [heads, width];
            let keys = self.array("0", shape, dtype.mlx(), &mut capacity)?;
            let values = self.array("1", shape, dtype.mlx(), &mut capacity)?;
            let buffers = Some((keys, values));
            match options.max_kv_size {
                None => {
                    check_capacity(capacity, offset)?;
                    LayerCache::Plain(PlainCache { buffers })
                }
                Some(max_size) => {
                    check_capacity(capacity, offset.min(max_size))?;
                    let (keep, index) = (options.keep, self.number("5")?);
                    let wrapped = offset >= max_size;
                    let last = capacity.unwrap_or_default();
                    let fits = if wrapped {
                        index > keep && index <= last && (last == max_size || index == last)
                    } else {
                        index == offset && last <= max_size
                    };
                    if !fits {
                        return Err(format!("the index {index} is out of range"));
                    }
                    LayerCache::Rotating(RotatingCache {
                        max_size,
                        keep,
                        buffers,
                        index,
                    })
                }
            }
        };
        match self.arrays.keys().next() {
            Some(name) => Err(format!("unexpected array `{name}`")),
            None => Ok(cache),
        }
    }

    fn matrix(
        &mut self,
        place: &str,
        quantization: Quantization,
        [heads, width]: [usize; 2],
        dtype: Dtype,
        capacity: &mut Option<usize>,
    ) -> Result<QuantizedMatrix, String> {
        let [_, packed] = quantization.packed_shape(1, width);
        let [_, groups] = quantization.scales_shape(1, width);
        let mut part = |part: &str, width: usize, dtype: mlx_rs::Dtype| {
            let place = format!("{place}.{part}");
            self.array(&place, [heads, width], dtype, capacity)
        };
        Ok(QuantizedMatrix {
            weight: part("0", packed, mlx_rs::Dtype::Uint32)?,
            scales: part("1", groups, dtype.mlx())?,
            biases: Some(part("2", groups, dtype.mlx())?),
            quantization,
        })
    }

    /// Takes the array `[1, heads, capacity, width]` at `place`; all arrays have one capacity.
    fn array(
        &mut self,
        place: &str,
        [heads, width]: [usize; 2],
        dtype: mlx_rs::Dtype,
        capacity: &mut Option<usize>,
    ) -> Result<Array, String> {
        let Some(array) = self.arrays.remove(place) else {
            return Err(format!("the array `{place}` is missing"));
        };
        let (found, shape) = (array.dtype(), array.shape().to_vec());
        if found != dtype {
            return Err(format!("expected the type {dtype:?}, found {found:?}"));
        }
        let length = *capacity.get_or_insert(shape.get(2).map_or(0, |&n| n as usize));
        let expected = [1, heads, length, width].map(|n| n as i32);
        if shape != expected {
            return Err(format!(
                "array `{place}`: expected the shape {expected:?}, found {shape:?}"
            ));
        }
        Ok(array)
    }

    fn number(&self, place: &str) -> Result<usize, String> {
        let Some(&number) = self.numbers.get(place) else {
            return Err(format!("the number `{place}` is missing"));
        };
        let range = 0..=i64::from(i32::MAX);
        match usize::try_from(number) {
            Ok(fits) if range.contains(&number) => Ok(fits),
            _ => Err(format!("the number `{place}` is out of range: {number}")),
        }
    }
}

fn check_capacity(capacity: Option<usize>, needed: usize) -> Result<(), String> {
    let found = capacity.unwrap_or_default();
    if needed == 0 {
        Err("the cache is empty".into())
    } else if found < needed {
        Err(format!("expected {needed} positions, found {found}"))
    } else {
        Ok(())
    }
}
