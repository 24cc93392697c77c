//! Conversion of OpenELM checkpoints: any of their formats to a model folder for MLX, to one for
//! Hugging Face, or to GGUF.
//!
//! | in | |
//! |---|---|
//! | Hugging Face, mlx-lm | a folder of `config.json` and safetensors, quantised or not |
//! | CoreNet | a `.pt` file, of weights or of a training run |
//! | CoreNet's MLX example | a folder with `weights.safetensors` |
//! | llama.cpp | a `.gguf` file of architecture `openelm` |
//!
//! Tensors are read, cast, quantised and written one after the other, so that a model of any size
//! passes through the memory of its largest few. The result is written beside the target and
//! renamed when it is whole and, unless [`ConvertOptions::verify`] is off, was compared with the
//! source.
//!
//! ```no_run
//! use openelm_core::{CancelHandle, convert::{self, ConvertOptions, Quantize}};
//! use openelm_core::quantization::{Quantization, QuantizationMode};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let options = ConvertOptions {
//!     quantize: Some(Quantize::uniform(Quantization::new(QuantizationMode::Affine, None, None)?)),
//!     ..ConvertOptions::default()
//! };
//! let cancel = CancelHandle::default();
//! let report = convert::convert("OpenELM-270M", "OpenELM-270M-4bit", &options, &cancel, |_| {})?;
//! println!("{:.2} bits a weight", report.bits_per_weight);
//! # Ok(())
//! # }
//! ```

mod architecture;
mod plan;
mod predictions;
mod recipe;
mod report;
mod safetensors_writer;
mod source;
mod staging;
mod tokenizer_files;
mod verify;

use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    str::FromStr,
    time::Instant,
};

use mlx_rs::{Array, transforms::async_eval};
use serde_json::{Map, Value};

pub use architecture::architecture;
pub use plan::{Plan, PlannedTensor};
pub use recipe::{LayerRule, Quantize, Recipe};
pub use report::{ConvertReport, TensorChecks, TensorError, Verification};
pub(crate) use tokenizer_files::TOKENIZER_FILES;

use plan::{Item, Part};
use safetensors_writer::SafetensorsWriter;
use source::Source;
use staging::Staging;
use tokenizer_files::TokenizerFiles;

use crate::{
    adapter::Adapter,
    cancel::CancelHandle,
    config::Config,
    dtype::Dtype,
    error::{Error, Result},
    gguf::{self, FileType, GgufWriter},
};

/// What to convert to, and how.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// What to write. Default [`Format::Mlx`].
    pub format: Format,
    /// The type of what is not quantised, and of scales and biases. `None`, the default: of each
    /// tensor the type that it is stored in. GGUF files go by their [`FileType`].
    pub dtype: Option<Dtype>,
    /// How to quantise. `None`, the default: quantised matrices stay as they are, and others too.
    pub quantize: Option<Quantize>,
    /// Expand quantised matrices. Default false.
    pub dequantize: bool,
    /// The architecture; needed for CoreNet's files of other than the four released sizes.
    /// `None`, the default: what the source says, or its tensors' shapes.
    pub architecture: Option<Config>,
    /// Of a training checkpoint take the moving average of the weights. Default false.
    pub ema: bool,
    /// The tokenizer to go with the model. Default: the source's.
    pub tokenizer: TokenizerChoice,
    /// Largest size of a weight file, in bytes. Default 5 GB, as mlx-lm.
    pub max_shard_bytes: u64,
    /// An adapter to make part of the weights; matrices that it changes are packed again. Default
    /// none.
    pub adapter: Option<Adapter>,
    /// Replace a target that exists. Default false.
    pub force: bool,
    /// Compare the result with the source before it takes its place. Default true.
    pub verify: bool,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            format: Format::Mlx,
            dtype: None,
            quantize: None,
            dequantize: false,
            architecture: None,
            ema: false,
            tokenizer: TokenizerChoice::OfSource,
            max_shard_bytes: 5_000_000_000,
            adapter: None,
            force: false,
            verify: true,
        }
    }
}

/// What a conversion writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder that mlx-lm, mlx-swift-lm and this crate load.
    Mlx,
    /// A folder in Hugging Face's layout, never quantised.
    HuggingFace,
    /// A file that llama.cpp loads.
    Gguf(FileType),
}

impl Format {
    /// `mlx`, `hf` or `gguf`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlx => "mlx",
            Self::HuggingFace => "hf",
            Self::Gguf(_) => "gguf",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads the names of [`Format::name`]; `gguf` is of 16-bit floats.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "mlx" => Ok(Self::Mlx),
            "hf" | "huggingface" => Ok(Self::HuggingFace),
            "gguf" => Ok(Self::Gguf(FileType::F16)),
            _ => Err(Error::Option {
                option: "format",
                problem: format!("expected mlx, hf or gguf, found {name}"),
            }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a converted model's tokenizer comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// From the source, which must have one.
    #[default]
    OfSource,
    /// From this file or folder.
    Path(PathBuf),
    /// The result has none.
    Without,
}

/// How far a conversion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertEvent<'a> {
    /// A tensor was written.
    Written {
        /// Its name in the checkpoint.
        name: &'a str,
        /// Bytes written so far.
        done: u64,
        /// Bytes to be written in all.
        total: u64,
    },
    /// The result is being compared with the source.
    Verifying {
        /// Tensors compared so far.
        done: u64,
        /// Tensors in all.
        total: u64,
    },
}

/// Works out what [`convert`] would write, from the headers alone.
///
/// # Errors
/// As [`convert`], for what is wrong with the source and the options.
pub fn plan(source: impl AsRef<Path>, options: &ConvertOptions) -> Result<Plan> {
    check(options)?;
    let source = Source::open(source.as_ref(), options)?;
    TokenizerFiles::find(&source, options)?;
    Plan::new(&source, options)
}

/// Converts the model at `source`, a folder or file, to `target`, a new folder or GGUF file.
/// `progress` is told of every tensor; `cancel` ends the conversion from any thread.
///
/// # Errors
/// [`Error::Target`] if the target exists, lies in the source or cannot be replaced;
/// [`Error::Verification`] if the result is not what it should be; [`Error::Cancelled`];
/// [`Error::Option`] for options that contradict each other or do not fit the model; and the
/// errors of the readers for what is wrong with the source. The target is then as it was.
pub fn convert(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &ConvertOptions,
    cancel: &CancelHandle,
    mut progress: impl FnMut(ConvertEvent<'_>),
) -> Result<ConvertReport> {
    let (source_path, target) = (source.as_ref(), target.as_ref());
    let started = Instant::now();
    check(options)?;
    let mut source = Source::open(source_path, options)?;
    let tokenizer = TokenizerFiles::find(&source, options)?;
    let plan = Plan::new(&source, options)?;
    let is_file = matches!(options.format, Format::Gguf(_));
    let staging = Staging::begin(source_path, target, is_file, options.force)?;
    let mut task = Task {
        cancel,
        progress: &mut progress,
        done: 0,
        total: plan.bytes(),
    };
    let written = write(&mut source, &plan, &tokenizer, options, &staging, &mut task);
    written.map_err(|error| staging.of_target(error))?;
    let mut report = ConvertReport {
        source: source_path.to_path_buf(),
        source_format: plan.source_format,
        target: target.to_path_buf(),
        format: options.format.name(),
        parameters: plan.config.parameter_count(),
        source_bytes: plan.source_bytes,
        bytes: plan.bytes(),
        bits_per_weight: plan.bits_per_weight(),
        tensors: plan.tensors.len(),
        seconds: started.elapsed().as_secs_f64(),
        verification: None,
    };
    drop(source);
    if options.verify {
        let verification = verify::verify(
            source_path,
            &staging,
            &tokenizer,
            options,
            cancel,
            &mut progress,
        );
        report.verification = Some(verification.map_err(|error| staging.of_target(error))?);
    }
    // A GGUF file has no folder of its own to put the report into.
    if !is_file {
        let path = staging.written().join("convert-report.json");
        let json = serde_json::to_value(&report).unwrap_or_default();
        let written = fs::write(&path, format!("{json:#}\n")).map_err(Error::io(&path));
        written.map_err(|error| staging.of_target(error))?;
    }
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    staging.keep()?;
    Ok(report)
}

/// Writes the model to where it is staged.
fn write(
    source: &mut Source,
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
    write_weights(source, plan, options, &written, task)?;
    let config = config_json(plan, options)?;
    let path = written.join("config.json");
    fs::write(&path, config).map_err(Error::io(&path))?;
    tokenizer.write(source, &plan.config, &written)
}

/// What goes along with writing.
struct Task<'a> {
    cancel: &'a CancelHandle,
    progress: &'a mut dyn FnMut(ConvertEvent<'_>),
    done: u64,
    total: u64,
}

impl Task<'_> {
    fn wrote(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.done += bytes;
        (self.progress)(ConvertEvent::Written {
            name,
            done: self.done,
            total: self.total,
        });
        match self.cancel.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }
}

/// Refuses options that contradict each other.
fn check(options: &ConvertOptions) -> Result<()> {
    let refuse = |option, problem: &str| {
        Err(Error::Option {
            option,
            problem: problem.into(),
        })
    };
    if options.quantize.is_some() && options.dequantize {
        return refuse("dequantize", "cannot be combined with quantize");
    }
    match options.format {
        Format::HuggingFace if options.quantize.is_some() => refuse(
            "quantize",
            "Hugging Face's layout has no quantised form; write mlx",
        ),
        Format::Gguf(_) if options.quantize.is_some() => refuse(
            "quantize",
            "GGUF has packings of its own; choose a GGUF type",
        ),
        Format::Gguf(_) if options.dtype.is_some() => {
            refuse("dtype", "GGUF has types of its own; choose a GGUF type")
        }
        _ if options.max_shard_bytes == 0 => refuse("max shard size", "expected more than 0"),
        _ => match &options.quantize {
            Some(quantize) => quantize.default_quantization().map(|_| ()),
            None => Ok(()),
        },
    }
}

/// Writes the safetensors files. As many tensors as there are readers are under way at once.
fn write_weights(
    source: &mut Source,
    plan: &Plan,
    options: &ConvertOptions,
    folder: &Path,
    task: &mut Task<'_>,
) -> Result<()> {
    let parts: Vec<&Part> = plan.items.iter().flat_map(|item| &item.parts).collect();
    let format = match options.format {
        Format::HuggingFace => "pt",
        _ => "mlx",
    };
    let parameters = plan.config.parameter_count();
    let mut writer =
        SafetensorsWriter::create(folder, &parts, options.max_shard_bytes, format, parameters)?;
    let mut under_way = VecDeque::new();
    let mut items = plan.items.iter();
    loop {
        while under_way.len() < source.readers()
            && let Some(item) = items.next()
        {
            let arrays = arrays(source, item)?;
            async_eval(&arrays)?;
            under_way.push_back((item, arrays));
        }
        let Some((item, arrays)) = under_way.pop_front() else {
            return writer.finish();
        };
        for (part, array) in item.parts.iter().zip(&arrays) {
            writer.write(part, array)?;
            task.wrote(&item.name, part.bytes())?;
        }
    }
}

/// The arrays of an item's parts, not evaluated.
fn arrays(source: &mut Source, item: &Item) -> Result<Vec<Array>> {
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
    let mut json: Map<String, Value> =
        serde_json::from_str(&plan.config.to_json()).map_err(|error| Error::Config {
            path: "config.json".into(),
            key: "model_type".into(),
            problem: error.to_string(),
        })?;
    json.retain(|key, _| key != "quantization" && key != "quantization_config");
    json.entry("architectures")
        .or_insert_with(|| Value::from(vec!["OpenELMForCausalLM"]));
    // What most numbers are stored in; scales, where they are packed.
    let dtype = options.dtype.unwrap_or_else(|| most_common(&plan.items));
    if json.contains_key("dtype") {
        json.insert("dtype".into(), dtype.to_string().into());
    }
    if json.contains_key("torch_dtype") || !json.contains_key("dtype") {
        json.insert("torch_dtype".into(), dtype.to_string().into());
    }
    if let Some(map) = &plan.quantization {
        json.insert("quantization".into(), map.to_json());
        // The name that transformers looks for.
        json.insert("quantization_config".into(), map.to_json());
    }
    Ok(format!("{:#}\n", Value::Object(json)))
}

fn most_common(items: &[Item]) -> Dtype {
    let count = |dtype| {
        let of_type = items.iter().filter(|item| item.dtype == dtype);
        let parts = of_type.flat_map(|item| &item.parts);
        parts.map(Part::bytes).sum::<u64>()
    };
    [Dtype::Bfloat16, Dtype::Float16, Dtype::Float32]
        .into_iter()
        .max_by_key(|&dtype| count(dtype))
        .unwrap_or(Dtype::Float32)
}

fn write_gguf(
    source: &mut Source,
    tokenizer: &TokenizerFiles,
    file_type: FileType,
    path: &Path,
    target: &Path,
    task: &mut Task<'_>,
) -> Result<()> {
    let vocabulary = tokenizer.vocabulary()?;
    let name = target.file_stem().and_then(|name| name.to_str());
    let name = name.unwrap_or("OpenELM");
    let metadata = gguf::metadata(&source.config, name, file_type, vocabulary.as_ref())?;
    let planned = gguf::tensor_plan(&source.config, file_type)?;
    let file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(Error::io(path))?);
    let specs = planned.iter().map(|planned| planned.tensor.clone());
    let mut writer = GgufWriter::new(file, path, &metadata, specs.collect())?;
    let mut whole: Option<(&str, Array)> = None;
    for planned in &planned {
        if whole
            .as_ref()
            .is_none_or(|(name, _)| *name != planned.source)
        {
            let array = source.dense(&planned.source, Dtype::Float32)?;
            whole = Some((&planned.source, array.contiguous()?));
        }
        let Some((_, array)) = &whole else { continue };
        let values = array
            .try_as_slice::<f32>()
            .map_err(|error| Error::Checkpoint {
                path: path.to_path_buf(),
                problem: format!("tensor `{}`: {error}", planned.source),
            })?;
        writer.write(&planned.tensor.name, planned.part_of(values)?)?;
        let kind = planned.tensor.kind;
        let elements: usize = planned.tensor.shape.iter().product();
        let bytes = elements / kind.block_elements() * kind.block_bytes();
        task.wrote(&planned.source, bytes as u64)?;
    }
    let file = writer.finish()?.into_inner();
    let file = file.map_err(|error| Error::io(path)(error.into_error()))?;
    file.sync_data().map_err(Error::io(path))
}
