//! `openelm fuse`: merges an adapter into its model.

use std::path::PathBuf;

use openelm_core::{
    CancelHandle,
    adapter::Adapter,
    convert::{Conversion, ConvertOptions, Format, TokenizerChoice},
};

use crate::{
    choices::{Dtype, GgufType},
    error::Error,
    hub::{self, Files},
    interrupt::Interrupt,
    output,
};

/// Arguments of `openelm fuse`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Model that the adapter was trained on: a folder or a repository
    #[arg(long, short, value_name = "PATH|REPO")]
    model: PathBuf,

    /// Adapter of openelm, mlx-lm or PEFT: a folder or a repository
    #[arg(long, value_name = "PATH|REPO", default_value = "adapters")]
    adapter_path: PathBuf,

    /// Model folder to write, or a GGUF or .pt file if its name ends in .gguf or .pt
    #[arg(long, value_name = "PATH", default_value = "fused_model")]
    save_path: PathBuf,

    /// LLaMA tokenizer to include: a tokenizer.json or tokenizer.model, a folder or repository with
    /// one, or auto [default: the model's tokenizer]
    #[arg(long, value_name = "PATH|REPO")]
    tokenizer: Option<PathBuf>,

    /// Dequantise a quantised model; otherwise changed matrices are quantised again
    #[arg(long, alias = "de-quantize", short)]
    dequantize: bool,

    /// Data type of the weights [default: as stored]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Data type of a GGUF file [default: f16]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    gguf_type: Option<GgufType>,

    /// Replace an existing model folder or GGUF file; other files in the folder stay
    #[arg(long)]
    force: bool,

    /// No messages
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm fuse --model OpenELM-270M --adapter-path adapters --save-path OpenELM-270M-tales
  openelm fuse --model OpenELM-270M-4bit --dequantize --save-path tales
  openelm fuse --model OpenELM-270M --tokenizer Llama-2-7b-hf --save-path tales
  openelm fuse --model OpenELM-270M --save-path tales.gguf --gguf-type q8_0";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let format = Format::of_target(Some(&args.save_path), None);
    let format = match (format, args.gguf_type) {
        (Format::Gguf(_), Some(file_type)) => Format::Gguf(file_type.into()),
        (_, Some(_)) => {
            let problem = "--gguf-type: --save-path does not end in .gguf";
            return Err(Error::Usage(problem.into()));
        }
        (format, None) => format,
    };
    args.adapter_path = hub::local(&args.adapter_path, &Files::Adapter, args.quiet)?;
    args.model = hub::local(&args.model, &Files::Model, args.quiet)?;
    if let Some(given) = args.tokenizer.take() {
        args.tokenizer = hub::tokenizer(&given, &args.model, args.quiet)?;
    }
    let options = ConvertOptions {
        format,
        tokenizer: args
            .tokenizer
            .map_or(TokenizerChoice::OfSource, TokenizerChoice::Path),
        dtype: args.dtype.map(Into::into),
        dequantize: args.dequantize,
        adapter: Some(Adapter::load(&args.adapter_path)?),
        force: args.force,
        ..ConvertOptions::default()
    };
    let conversion = Conversion::open(&args.model, &options)?;
    let cancel = CancelHandle::default();
    let interrupt = Interrupt::cancelling(cancel.clone())?;
    let report = interrupt.result(conversion.write(&args.save_path, &cancel, |_| {}))?;
    if !args.quiet {
        output::note(&format!(
            "fused into {}: {}, compared with model and adapter",
            args.save_path.display(),
            output::bytes(report.bytes),
        ));
    }
    Ok(())
}
