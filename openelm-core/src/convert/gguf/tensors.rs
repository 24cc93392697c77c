//! The map from tensors of a checkpoint to tensors of a GGUF file.
//!
//! The fused QKV stays one tensor with the same row order: llama.cpp rotates OpenELM's heads in the
//! order of the checkpoint. `proj_1` `[2 I, D]` is split into `ffn_gate`, its first I rows, and
//! `ffn_up`, its last I rows.

use std::{collections::BTreeSet, ops::Range};

use super::config::check_variant;
use crate::{
    config::{
        Config,
        tensor_names::{
            ATTN_NORM, EMBEDDING, FFN_NORM, FINAL_NORM, K_NORM, OUT_PROJ, PROJ_1, PROJ_2, Q_NORM,
            QKV_PROJ, WEIGHT, parse_layer, weight,
        },
    },
    error::{Error, Result},
    formats::gguf::{FileType, GgufReader, TensorData, TensorSpec, TensorType},
    mlx::Dtype,
};

/// A tensor of a GGUF file and the source of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// The tensor in the GGUF file.
    pub tensor: TensorSpec,
    /// Checkpoint name of the source tensor.
    pub source: String,
    /// Shape of the source tensor.
    pub source_shape: Vec<usize>,
    /// Range of rows in the source tensor; range of elements if it has one dimension.
    pub rows: Range<usize>,
}

impl PlannedTensor {
    /// The tensor's part of the source's elements.
    ///
    /// # Errors
    ///
    /// [`Error::TensorShape`] if the length of `whole` does not match the source's shape.
    pub fn part_of<'a, T>(&self, whole: &'a [T]) -> Result<&'a [T]> {
        let row: usize = self.source_shape.iter().skip(1).product();
        let expected = self.source_shape.iter().product::<usize>();
        let part = whole.get(self.rows.start * row..self.rows.end * row);
        part.filter(|_| whole.len() == expected)
            .ok_or_else(|| Error::TensorShape {
                path: "config".into(),
                name: self.source.clone(),
                expected: self.source_shape.clone(),
                found: vec![whole.len()],
            })
    }
}

/// The tensors of a GGUF file with the weights of a model, in the order in which to write them, the
/// order of [`Config::tensors`].
///
/// Norms are F32. In a quantised file, a tensor with a row length that is not a multiple of 32 is
/// F16, and the tied embedding of a Q4_0 file is Q8_0: llama.cpp's tools choose these types for
/// accuracy.
///
/// # Errors
///
/// [`Error::Config`] for a variant of the architecture that llama.cpp does not support.
pub fn tensor_plan(config: &Config, file_type: FileType) -> Result<Vec<PlannedTensor>> {
    check_variant(config)?;
    let mut plan = Vec::new();
    for (source, shape) in config.tensors() {
        let Some(names) = gguf_names(&source) else {
            return Err(Error::UnexpectedTensor {
                path: "config".into(),
                name: source,
            });
        };
        // `Config::tensors` has no scalars.
        let share = shape[0] / names.len();
        for (i, name) in names.into_iter().enumerate() {
            let mut part = shape.clone();
            part[0] = share;
            plan.push(PlannedTensor {
                tensor: TensorSpec {
                    kind: tensor_type(file_type, &source, &part),
                    name,
                    shape: part,
                },
                source: source.clone(),
                source_shape: shape.clone(),
                rows: i * share..(i + 1) * share,
            });
        }
    }
    Ok(plan)
}

/// Checks that the tensors of a file match `config` exactly, in name and shape.
///
/// # Errors
///
/// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`].
pub fn check_tensors(reader: &GgufReader, config: &Config) -> Result<()> {
    let plan = tensor_plan(config, FileType::F32)?;
    for PlannedTensor { tensor, .. } in &plan {
        let Some(found) = reader.tensors().get(&tensor.name) else {
            return Err(Error::MissingTensor {
                path: reader.path().into(),
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
            });
        };
        if found.shape != tensor.shape {
            return Err(Error::TensorShape {
                path: reader.path().into(),
                name: tensor.name.clone(),
                expected: tensor.shape.clone(),
                found: found.shape.clone(),
            });
        }
    }
    let known: BTreeSet<&String> = plan.iter().map(|planned| &planned.tensor.name).collect();
    match reader.tensors().keys().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::UnexpectedTensor {
            path: reader.path().into(),
            name: name.clone(),
        }),
    }
}

/// Reads the tensor with the checkpoint name `source`, one of [`Config::tensors`], from its one or
/// two tensors in the file. Check the file first with [`check_tensors`].
///
/// # Errors
///
/// As [`GgufReader::read`]; [`Error::UnexpectedTensor`] for an unknown checkpoint name.
pub fn read_tensor(reader: &mut GgufReader, source: &str) -> Result<TensorData> {
    let Some(names) = gguf_names(source) else {
        return Err(Error::UnexpectedTensor {
            path: reader.path().into(),
            name: source.into(),
        });
    };
    let mut whole: Option<TensorData> = None;
    for name in names {
        let part = reader.read(&name)?;
        whole = Some(match whole {
            Some(before) => concatenate(before, part),
            None => part,
        });
    }
    whole.ok_or_else(|| reader.malformed(format!("there is no tensor `{source}`")))
}

/// The stored type of the tensor with the checkpoint name `source`; [`TensorType::F32`], the type
/// that [`read_tensor`] returns, if its parts have different types.
pub(crate) fn stored_type(reader: &GgufReader, source: &str) -> Option<TensorType> {
    let names = gguf_names(source)?.into_iter();
    let mut kinds = names.map(|name| Some(reader.tensors().get(&name)?.kind));
    let first = kinds.next()??;
    let alike = kinds.all(|kind| kind == Some(first));
    Some(if alike { first } else { TensorType::F32 })
}

/// Concatenates rows; as 32-bit floats if the types differ.
fn concatenate(mut first: TensorData, second: TensorData) -> TensorData {
    if first.dtype == second.dtype {
        first.bytes.extend(second.bytes);
        return first;
    }
    let values = [first.to_f32(), second.to_f32()];
    TensorData {
        dtype: Dtype::Float32,
        bytes: values
            .iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

/// Names within a layer, checkpoint to GGUF, without prefix and `.weight`.
const LAYER_PARTS: [(&str, &[&str]); 8] = [
    (ATTN_NORM, &["attn_norm"]),
    (QKV_PROJ, &["attn_qkv"]),
    (Q_NORM, &["attn_q_norm"]),
    (K_NORM, &["attn_k_norm"]),
    (OUT_PROJ, &["attn_output"]),
    (FFN_NORM, &["ffn_norm"]),
    (PROJ_1, &["ffn_gate", "ffn_up"]),
    (PROJ_2, &["ffn_down"]),
];

/// The GGUF names of the tensor with the checkpoint name `source`.
fn gguf_names(source: &str) -> Option<Vec<String>> {
    let stem = source.strip_suffix(WEIGHT)?;
    match stem {
        EMBEDDING => return Some(vec!["token_embd.weight".into()]),
        FINAL_NORM => return Some(vec!["output_norm.weight".into()]),
        _ => {}
    }
    let (layer, part) = parse_layer(stem)?;
    let (_, names) = LAYER_PARTS.iter().find(|(name, _)| *name == part)?;
    let name = |name: &&str| format!("blk.{layer}.{name}.weight");
    Some(names.iter().map(name).collect())
}

fn tensor_type(file_type: FileType, source: &str, shape: &[usize]) -> TensorType {
    let kind = match file_type.tensor_type() {
        _ if shape.len() < 2 => return TensorType::F32,
        TensorType::Q4_0 if source == weight(EMBEDDING) => TensorType::Q8_0,
        kind => kind,
    };
    match shape.last() {
        Some(row) if row.is_multiple_of(kind.block_elements()) => kind,
        _ => TensorType::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LayerWiseConfig;
    use crate::config::Preset;

    #[test]
    fn a_released_model_has_nine_tensors_a_layer() {
        let plan = tensor_plan(&Preset::Size270M.config(), FileType::Q4_0).unwrap();
        assert_eq!(plan.len(), 9 * 16 + 2);
        let find = |name: &str| {
            plan.iter()
                .find(|planned| planned.tensor.name == name)
                .unwrap()
        };
        let up = find("blk.15.ffn_up.weight");
        assert_eq!(up.source, "transformer.layers.15.ffn.proj_1.weight");
        assert_eq!(up.source_shape, [10_240, 1280]);
        assert_eq!(up.rows, 5120..10_240);
        assert_eq!(up.tensor.shape, [5120, 1280]);
        assert_eq!(up.tensor.kind, TensorType::Q4_0);
        assert_eq!(find("blk.15.ffn_gate.weight").rows, 0..5120);
        assert_eq!(find("blk.0.attn_qkv.weight").tensor.shape, [1152, 1280]);
        assert_eq!(find("token_embd.weight").tensor.kind, TensorType::Q8_0);
        assert_eq!(
            find("blk.3.attn_k_norm.weight").tensor.kind,
            TensorType::F32
        );
        assert_eq!(find("output_norm.weight").rows, 0..1280);
    }

    #[test]
    fn odd_rows_are_not_quantized() {
        let settings = LayerWiseConfig {
            model_dim: 80,
            head_dim: 16,
            ffn_dim_divisor: 32,
            ..Preset::Size270M.settings()
        };
        let config = Config::layer_wise(settings).unwrap();
        let plan = tensor_plan(&config, FileType::Q8_0).unwrap();
        let kind = |name: &str| {
            let planned = plan.iter().find(|planned| planned.tensor.name == name);
            planned.unwrap().tensor.kind
        };
        assert_eq!(kind("blk.0.ffn_gate.weight"), TensorType::F16);
        assert_eq!(kind("token_embd.weight"), TensorType::F16);
        assert_eq!(kind("blk.0.ffn_down.weight"), TensorType::Q8_0);
        assert_eq!(kind("blk.0.attn_norm.weight"), TensorType::F32);
    }

    #[test]
    fn parts_are_cut_by_rows() {
        let plan = tensor_plan(&Preset::Size270M.config(), FileType::F32).unwrap();
        let up = plan
            .iter()
            .find(|planned| planned.tensor.name == "blk.0.ffn_up.weight")
            .unwrap();
        let whole: Vec<u32> = (0..2 * 768 * 1280).collect();
        let part = up.part_of(&whole).unwrap();
        assert_eq!((part.len(), part[0]), (768 * 1280, 768 * 1280));
        let message = up.part_of(&whole[1..]).unwrap_err().to_string();
        assert!(
            message.contains("`transformer.layers.0.ffn.proj_1.weight`"),
            "{message}"
        );
    }
}
