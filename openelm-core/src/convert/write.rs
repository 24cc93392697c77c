//! Writing of the result: weights, `config.json` and tokenizer, or one GGUF file.

use std::{collections::VecDeque, fs::File, io::BufWriter, path::Path};

use mlx_rs::{
    Array,
    transforms::{self, async_eval},
};
use serde_json::{Map, Value};

use super::{
    corenet_config::corenet_config,
    event::ConvertEvent,
    options::{ConvertOptions, Format},
    plan::{Item, Plan},
    staging::Staging,
    tokenizer_files::TokenizerFiles,
    weight_files::WeightFiles,
};
use crate::{
    cancel::CancelHandle,
    convert::{
        gguf::{metadata, tensor_plan},
        source::{CORENET_WEIGHTS, SourceModel},
    },
    error::{Error, Result},
    files::write_synced,
    formats::{
        gguf::{FileType, GgufWriter},
        torch::{NewTorchTensor, TorchWriter},
    },
    gate::pause_point,
    mlx::{Dtype, runtime},
    weights::{NewTensor, SafetensorsWriter},
};

/// Writes the model to its staging path.
pub(super) fn write(
    source: &mut SourceModel,
    plan: &Plan,
    tokenizer: &TokenizerFiles,
    options: &ConvertOptions,
    staging: &Staging,
    task: &mut Task<'_>,
) -> Result<()> {
    let written = staging.written();
    if let Format::Gguf(file_type) = options.format {
        let target = staging.target();
        return write_gguf(source, tokenizer, file_type, &written, target, task);
    }
    if options.format == Format::CoreNet {
        return write_corenet(source, plan, &written, task);
    }
    write_weights(source, plan, options, &written, task)?;
    let path = written.join("config.json");
    if options.format == Format::CoreNetMlx {
        write_synced(&path, corenet_config(&plan.config)?)?;
        return tokenizer.write_tokenizer(source, &plan.config, &written);
    }
    write_synced(&path, config_json(plan, options)?)?;
    tokenizer.write(source, &plan.config, &written)
}

/// Progress and cancellation of writing.
pub(super) struct Task<'a> {
    pub(super) cancel: &'a CancelHandle,
    pub(super) progress: &'a mut dyn FnMut(ConvertEvent<'_>),
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) replacement: Option<&'a Replacement<'a>>,
}

/// A function of a tensor's name in the result; `None` for the source's tensor.
pub(super) type Replacement<'a> = dyn Fn(&str) -> Result<Option<Array>> + 'a;

impl Task<'_> {
    /// The arrays of an item's parts, if they are not the source's.
    fn replaced(&self, item: &Item) -> Result<Option<Vec<Array>>> {
        let Some(replacement) = self.replacement else {
            return Ok(None);
        };
        let arrays = item.parts.iter().map(|part| {
            let array = replacement(&part.name)?;
            let shape = array.iter().flat_map(|array| array.shape());
            let fits = shape.eq(part
                .shape
                .iter()
                .map(|&n| n as i32)
                .collect::<Vec<_>>()
                .iter());
            match array {
                Some(_) if !fits => Err(Error::checkpoint(
                    "the new weights",
                    format!("`{}` has another shape than planned", part.name),
                )),
                other => Ok(other),
            }
        });
        arrays.collect()
    }

    fn wrote(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.done += bytes;
        (self.progress)(ConvertEvent::Written {
            name,
            done: self.done,
            total: self.total,
        });
        self.cancel.check()
    }
}

/// Writes the safetensors files.
fn write_weights(
    source: &mut SourceModel,
    plan: &Plan,
    options: &ConvertOptions,
    folder: &Path,
    task: &mut Task<'_>,
) -> Result<()> {
    let parts: Vec<&NewTensor> = plan.items.iter().flat_map(|item| &item.parts).collect();
    if options.format == Format::CoreNetMlx {
        let path = folder.join(CORENET_WEIGHTS);
        let mut writer = SafetensorsWriter::create(&path, &path, &parts, ("format", "mlx"))?;
        write_items(source, plan, task, |part, array| writer.write(part, array))?;
        return writer.finish();
    }
    let format = match options.format {
        Format::HuggingFace => "pt",
        _ => "mlx",
    };
    let parameters = plan.config.parameter_count();
    let mut writer =
        WeightFiles::create(folder, &parts, options.max_shard_bytes, format, parameters)?;
    write_items(source, plan, task, |part, array| writer.write(part, array))?;
    writer.finish()
}

/// Writes a state dict of PyTorch with CoreNet's names.
fn write_corenet(
    source: &mut SourceModel,
    plan: &Plan,
    path: &Path,
    task: &mut Task<'_>,
) -> Result<()> {
    let tensors = plan.items.iter().flat_map(|item| {
        let parts = item.parts.iter();
        parts.map(|part| NewTorchTensor {
            name: part.name.clone(),
            dtype: item.dtype,
            shape: part.shape.clone(),
        })
    });
    let mut writer = TorchWriter::create(path, tensors.collect())?;
    write_items(source, plan, task, |_, array| writer.write(array))?;
    writer.finish()
}

/// Calls `write` for every tensor in the order of the plan, with one tensor per reader in progress.
fn write_items(
    source: &mut SourceModel,
    plan: &Plan,
    task: &mut Task<'_>,
    mut write: impl FnMut(&NewTensor, &Array) -> Result<()>,
) -> Result<()> {
    let mut under_way = VecDeque::new();
    let mut items = plan.items.iter();
    loop {
        while under_way.len() < source.readers()
            && let Some(item) = items.next()
        {
            let arrays = match task.replaced(item)? {
                Some(arrays) => arrays,
                None => arrays(source, item)?,
            };
            async_eval(&arrays)?;
            under_way.push_back((item, arrays));
        }
        let Some((item, arrays)) = under_way.pop_front() else {
            return Ok(());
        };
        for (part, array) in item.parts.iter().zip(&arrays) {
            write(part, array)?;
            task.wrote(&item.name, part.bytes())?;
        }
        pause_point(task.cancel, || {
            let arrays = under_way.iter().flat_map(|(_, arrays)| arrays);
            Ok(transforms::eval(arrays)?)
        })?;
    }
}

/// The arrays of an item's parts, not evaluated.
fn arrays(source: &mut SourceModel, item: &Item) -> Result<Vec<Array>> {
    let stem = item.name.strip_suffix(".weight").unwrap_or(&item.name);
    let packed = match item.packing {
        None => return Ok(vec![source.dense(&item.name, item.dtype)?]),
        Some(packing) if source.packing(stem) == Some(packing) && !source.adapts(&item.name) => {
            source.packed(stem, item.dtype)?
        }
        Some(packing) => source.quantize(stem, item.dtype, packing)?,
    };
    let arrays = [Some(packed.weight), Some(packed.scales), packed.biases];
    Ok(arrays.into_iter().flatten().collect())
}

/// The text of the result's `config.json`.
fn config_json(plan: &Plan, options: &ConvertOptions) -> Result<String> {
    let mut json: Map<String, Value> = serde_json::from_str(&plan.config.to_json())
        .map_err(|error| Error::config("config.json", "model_type", error.to_string()))?;
    json.retain(|key, _| key != "quantization" && key != "quantization_config");
    json.entry("architectures")
        .or_insert_with(|| Value::from(vec!["OpenELMForCausalLM"]));
    // The dtype of most numbers, or of their scales if quantised.
    let dtype = options.dtype.unwrap_or_else(|| most_common(&plan.items));
    if json.contains_key("dtype") {
        json.insert("dtype".into(), dtype.to_string().into());
    }
    if json.contains_key("torch_dtype") || !json.contains_key("dtype") {
        json.insert("torch_dtype".into(), dtype.to_string().into());
    }
    if let Some(map) = &plan.quantization {
        json.insert("quantization".into(), map.to_json());
        // The key that transformers reads.
        json.insert("quantization_config".into(), map.to_json());
    }
    Ok(format!("{:#}\n", Value::Object(json)))
}

fn most_common(items: &[Item]) -> Dtype {
    let count = |dtype| {
        let of_type = items.iter().filter(|item| item.dtype == dtype);
        let parts = of_type.flat_map(|item| &item.parts);
        parts.map(NewTensor::bytes).sum::<u64>()
    };
    [Dtype::Bfloat16, Dtype::Float16, Dtype::Float32]
        .into_iter()
        .max_by_key(|&dtype| count(dtype))
        .unwrap_or(Dtype::Float32)
}

fn write_gguf(
    source: &mut SourceModel,
    tokenizer: &TokenizerFiles,
    file_type: FileType,
    path: &Path,
    target: &Path,
    task: &mut Task<'_>,
) -> Result<()> {
    let vocabulary = tokenizer.vocabulary()?;
    let name = target
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or("OpenELM");
    let metadata = metadata(&source.config, name, file_type, vocabulary.as_ref())?;
    let planned = tensor_plan(&source.config, file_type)?;
    let file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(Error::io(path))?);
    let specs = planned.iter().map(|planned| planned.tensor.clone());
    let mut writer = GgufWriter::new(file, path, &metadata, specs.collect())?;
    for parts in planned.chunk_by(|one, next| one.source == next.source) {
        let name = &parts[0].source;
        let array = source.dense(name, Dtype::Float32)?.contiguous()?;
        let values = array
            .try_as_slice::<f32>()
            .map_err(|error| Error::checkpoint(path, format!("tensor `{name}`: {error}")))?;
        for part in parts {
            writer.write(&part.tensor.name, part.part_of(values)?)?;
            let kind = part.tensor.kind;
            let elements: usize = part.tensor.shape.iter().product();
            let bytes = elements / kind.block_elements() * kind.block_bytes();
            task.wrote(name, bytes as u64)?;
            pause_point(task.cancel, runtime::synchronize)?;
        }
    }
    let file = writer.finish()?.into_inner();
    let file = file.map_err(|error| Error::io(path)(error.into_error()))?;
    file.sync_data().map_err(Error::io(path))
}
