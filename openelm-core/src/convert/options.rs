//! Options of a conversion.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::bit_widths::Quantize;
use crate::{
    adapter::Adapter,
    config::Config,
    error::{Error, Result},
    formats::gguf::FileType,
    mlx::Dtype,
};

/// Options of a conversion.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// The format to write. Default [`Format::Mlx`].
    pub format: Format,
    /// Dtype of tensors that are not quantised, and of scales and biases. `None`, the default: the
    /// stored dtype of each tensor. GGUF files use their [`FileType`].
    pub dtype: Option<Dtype>,
    /// The quantisation. `None`, the default: all matrices keep their form, quantised or not.
    pub quantize: Option<Quantize>,
    /// Dequantise quantised matrices. Default false.
    pub dequantize: bool,
    /// The architecture; required for CoreNet files of other than the four released sizes. `None`,
    /// the default: the source's configuration, or the shapes of its tensors.
    pub architecture: Option<Config>,
    /// Use the moving average of the weights in a training checkpoint. Default false.
    pub ema: bool,
    /// Other checkpoints of the source's architecture: the result has the arithmetic mean of all
    /// weights, summed in f64 and rounded once. Default none.
    pub average_with: Vec<PathBuf>,
    /// Keep the padding rows 32,000 to 32,127 of a CoreNet checkpoint's embedding, which take part
    /// in the softmax of the training. Default false: the model has LLaMA's 32,000 tokens.
    pub keep_padding_rows: bool,
    /// The tokenizer of the result. Default: the source's.
    pub tokenizer: TokenizerChoice,
    /// Largest size of a weight file, in bytes. Default 5 GB, as in mlx-lm.
    pub max_shard_bytes: u64,
    /// An adapter to fuse into the weights; quantised matrices that it changes are quantised
    /// again. Default none.
    pub adapter: Option<Adapter>,
    /// Replace an existing target. Default false.
    pub force: bool,
    /// Verify the result against the source before it replaces the target. Default true.
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
            average_with: Vec::new(),
            keep_padding_rows: false,
            tokenizer: TokenizerChoice::OfSource,
            max_shard_bytes: 5_000_000_000,
            adapter: None,
            force: false,
            verify: true,
        }
    }
}

impl ConvertOptions {
    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |option, problem: &str| Err(Error::option(option, problem));
        if self.adapter.is_some() && !self.average_with.is_empty() {
            return refuse("average_with", "cannot be combined with an adapter");
        }
        if self.quantize.is_some() && self.dequantize {
            return refuse("dequantize", "cannot be combined with quantize");
        }
        match self.format {
            Format::HuggingFace if self.quantize.is_some() => refuse(
                "quantize",
                "Hugging Face's layout has no quantised form; write mlx",
            ),
            Format::CoreNet | Format::CoreNetMlx if self.quantize.is_some() => refuse(
                "quantize",
                "CoreNet's formats are written without quantisation; write mlx",
            ),
            Format::Gguf(_) if self.quantize.is_some() => refuse(
                "quantize",
                "GGUF has its own quantisation types; choose a GGUF type",
            ),
            Format::Gguf(_) if self.dtype.is_some() => {
                refuse("dtype", "GGUF has its own types; choose a GGUF type")
            }
            _ if self.max_shard_bytes == 0 => refuse("max_shard_bytes", "expected more than 0"),
            _ => match &self.quantize {
                Some(quantize) => quantize.default_quantization().map(|_| ()),
                None => Ok(()),
            },
        }
    }
}

/// The format of a conversion's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder that mlx-lm, mlx-swift-lm and this crate load.
    Mlx,
    /// A folder in Hugging Face's layout, not quantised.
    HuggingFace,
    /// A file that llama.cpp loads.
    Gguf(FileType),
    /// A state dict of PyTorch with CoreNet's names, a `.pt` file.
    CoreNet,
    /// A folder of CoreNet's MLX example, for the four released sizes.
    CoreNetMlx,
}

impl Format {
    /// The format of a conversion to `target`: GGUF if a type is given or the name ends in `.gguf`
    /// (16-bit floats without a type), CoreNet's if it ends in `.pt`, else MLX.
    pub fn of_target(target: Option<&Path>, gguf: Option<FileType>) -> Self {
        let ending = target.and_then(Path::extension).unwrap_or_default();
        match gguf {
            Some(file_type) => Self::Gguf(file_type),
            None if ending.eq_ignore_ascii_case("gguf") => Self::Gguf(FileType::F16),
            None if ending.eq_ignore_ascii_case("pt") => Self::CoreNet,
            None => Self::Mlx,
        }
    }

    /// True if the result is a file, not a folder.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Gguf(_) | Self::CoreNet)
    }

    /// True if the format has no quantised matrices of MLX: they are dequantised.
    pub(crate) fn is_unquantized(self) -> bool {
        matches!(self, Self::HuggingFace) || self.has_corenet_names()
    }

    /// True for CoreNet's names of the tensors.
    pub(crate) fn has_corenet_names(self) -> bool {
        matches!(self, Self::CoreNet | Self::CoreNetMlx)
    }

    /// `mlx`, `hf`, `gguf`, `corenet` or `corenet-mlx`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlx => "mlx",
            Self::HuggingFace => "hf",
            Self::Gguf(_) => "gguf",
            Self::CoreNet => "corenet",
            Self::CoreNetMlx => "corenet-mlx",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads the names of [`Format::name`]; `gguf` means 16-bit floats.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "mlx" => Ok(Self::Mlx),
            "hf" | "huggingface" => Ok(Self::HuggingFace),
            "gguf" => Ok(Self::Gguf(FileType::F16)),
            "corenet" => Ok(Self::CoreNet),
            "corenet-mlx" => Ok(Self::CoreNetMlx),
            _ => Err(Error::option(
                "format",
                format!("expected mlx, hf, gguf, corenet or corenet-mlx, found {name}"),
            )),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The tokenizer of a converted model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// The source's tokenizer, which must exist.
    #[default]
    OfSource,
    /// The tokenizer of this file or folder.
    Path(PathBuf),
    /// No tokenizer.
    Without,
}
