//! The plan of a conversion: every tensor to write, its type, shape and source.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    corenet_config::corenet_config,
    options::{ConvertOptions, Format},
};
use crate::{
    config::{Config, corenet_name},
    convert::{gguf::tensor_plan, source::SourceModel},
    error::{Error, Result},
    formats::gguf::FileType,
    mlx::{Dtype, Quantization, QuantizationMap},
    weights::{NewTensor, StoredDtype},
};

/// The plan of a conversion. Holds no weights.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The architecture.
    pub config: Config,
    /// The matrices to quantise, if any.
    pub quantization: Option<QuantizationMap>,
    /// Description of the source's format.
    pub source_format: &'static str,
    /// Size of the source's weights, in bytes.
    pub source_bytes: u64,
    /// The tensors, in the order of writing.
    pub tensors: Vec<PlannedTensor>,
    pub(super) items: Vec<Item>,
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTensor {
    /// Name in the source.
    pub source: String,
    /// Name in the result.
    pub name: String,
    /// Type in the result, as in the file's header.
    pub dtype: String,
    /// Shape in the result, outermost dimension first.
    pub shape: Vec<usize>,
    /// Size in the result, in bytes.
    pub bytes: u64,
}

/// A tensor of the model and its tensors in a model folder.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Hugging Face's name.
    pub(super) name: String,
    /// The type of the tensor, or of its scales.
    pub(super) dtype: Dtype,
    pub(super) packing: Option<Quantization>,
    /// One tensor, or the two or three of a quantised matrix: weight, scales, biases.
    pub(super) parts: Vec<NewTensor>,
}

impl Plan {
    /// Size of the weights to write, in bytes.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Average number of bits per parameter, including scales.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes() as f64 * 8.0 / self.config.parameter_count() as f64
    }

    pub(super) fn new(source: &SourceModel, options: &ConvertOptions) -> Result<Self> {
        let mut plan = Self {
            config: source.config.clone(),
            quantization: None,
            source_format: source.format,
            source_bytes: source.bytes(),
            tensors: Vec::new(),
            items: Vec::new(),
        };
        if let Format::Gguf(file_type) = options.format {
            plan.tensors = gguf_tensors(source, file_type)?;
            return Ok(plan);
        }
        if options.format == Format::CoreNetMlx {
            // Other architectures have no name in this format.
            corenet_config(&source.config)?;
        }
        let mut packings = BTreeMap::new();
        let has_corenet_names = options.format.has_corenet_names();
        let tensors = if has_corenet_names {
            source.config.tensors_in_corenet_order()
        } else {
            source.config.tensors()
        };
        for (name, shape) in tensors {
            let stem = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
            let packing = match shape.as_slice() {
                &[_, width] => packing(source, options, &stem, width)?,
                _ => None,
            };
            if shape.len() == 2 {
                packings.insert(stem, packing);
            }
            let dtype = options.dtype.unwrap_or_else(|| source.dtype(&name));
            let written_name = if has_corenet_names {
                corenet_name(&name)
            } else {
                name.clone()
            };
            let parts = parts(&written_name, &shape, dtype, packing);
            for part in &parts {
                plan.tensors.push(PlannedTensor {
                    source: source.stored_name(&name),
                    name: part.name.clone(),
                    dtype: part.dtype.name().into(),
                    shape: part.shape.clone(),
                    bytes: part.bytes(),
                });
            }
            plan.items.push(Item {
                name,
                dtype,
                packing,
                parts,
            });
        }
        if let Some(quantize) = &options.quantize {
            quantize.check_rules(packings.keys())?;
        }
        plan.quantization = quantization(source, options, &packings)?;
        Ok(plan)
    }
}

/// The quantisation of the matrix `stem`.
fn packing(
    source: &SourceModel,
    options: &ConvertOptions,
    stem: &str,
    width: usize,
) -> Result<Option<Quantization>> {
    match &options.quantize {
        Some(quantize) => quantize.of(&source.config, stem, width),
        None if options.dequantize || options.format.is_unquantized() => Ok(None),
        None => Ok(source.packing(stem)),
    }
}

/// The `quantization` block, or `None` if no matrix is quantised.
fn quantization(
    source: &SourceModel,
    options: &ConvertOptions,
    packings: &BTreeMap<String, Option<Quantization>>,
) -> Result<Option<QuantizationMap>> {
    if packings.values().all(Option::is_none) {
        return match &options.quantize {
            None => Ok(None),
            Some(quantize) => Err(Error::option(
                "group_size",
                format!(
                    "no matrix of this model has rows that divide into groups of {}",
                    quantize.quantization.group_size()
                ),
            )),
        };
    }
    let default = match &options.quantize {
        Some(quantize) => Some(quantize.default_quantization()?),
        None => source.default_quantization(),
    };
    let Some(default) = default else {
        return Ok(None);
    };
    let mut map = QuantizationMap::uniform(default);
    for (stem, packing) in packings {
        // In mlx-lm, a matrix without scales is not quantised; only other settings are exceptions.
        if packing.is_some() {
            map.set(stem, *packing);
        }
    }
    Ok(Some(map))
}

fn parts(
    name: &str,
    shape: &[usize],
    dtype: Dtype,
    packing: Option<Quantization>,
) -> Vec<NewTensor> {
    let part = |name: String, dtype, shape: &[usize]| NewTensor {
        name,
        dtype,
        shape: shape.to_vec(),
    };
    let float = StoredDtype::Float(dtype);
    let (Some(packing), &[rows, width]) = (packing, shape) else {
        return vec![part(name.into(), float, shape)];
    };
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let groups = packing.scales_shape(rows, width);
    let scales = if packing.has_biases() {
        float
    } else {
        StoredDtype::Uint8
    };
    let weight = packing.packed_shape(rows, width);
    let mut parts = vec![
        part(name.into(), StoredDtype::Uint32, &weight),
        part(format!("{stem}.scales"), scales, &groups),
    ];
    if packing.has_biases() {
        parts.push(part(format!("{stem}.biases"), float, &groups));
    }
    parts
}

fn gguf_tensors(source: &SourceModel, file_type: FileType) -> Result<Vec<PlannedTensor>> {
    let planned = tensor_plan(&source.config, file_type)?;
    Ok(planned
        .into_iter()
        .map(|planned| {
            let kind = planned.tensor.kind;
            let elements: usize = planned.tensor.shape.iter().product();
            PlannedTensor {
                source: source.stored_name(&planned.source),
                name: planned.tensor.name,
                dtype: kind.to_string(),
                shape: planned.tensor.shape,
                bytes: (elements / kind.block_elements() * kind.block_bytes()) as u64,
            }
        })
        .collect())
}
