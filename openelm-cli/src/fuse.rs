//! `openelm fuse`: merges an adapter into its model.

use std::path::PathBuf;

use openelm_core::{
    CancelHandle,
    adapter::Adapter,
    convert::{Conversion, ConvertOptions, FileType, Format},
};

use crate::{choices::Dtype, error::Error, interrupt::Interrupt, output};

/// Arguments of `openelm fuse`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Model folder that the adapter was trained on
    #[arg(long, short, value_name = "FOLDER")]
    model: PathBuf,

    /// Adapter folder of openelm, mlx-lm or PEFT
    #[arg(long, value_name = "FOLDER", default_value = "adapters")]
    adapter_path: PathBuf,

    /// Model folder or GGUF file to write
    #[arg(long, value_name = "FOLDER", default_value = "fused_model")]
    save_path: PathBuf,

    /// Dequantise a quantised model; otherwise changed matrices are quantised again
    #[arg(long, alias = "de-quantize", short)]
    dequantize: bool,

    /// Data type of the weights [default: as stored]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Replace existing output
    #[arg(long)]
    force: bool,

    /// No messages
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm fuse --model OpenELM-270M --adapter-path adapters --save-path OpenELM-270M-tales
  openelm fuse --model OpenELM-270M-4bit --dequantize --save-path tales
  openelm fuse --model OpenELM-270M --save-path tales.gguf";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let is_gguf = args.save_path.extension().is_some_and(|e| e == "gguf");
    let options = ConvertOptions {
        format: if is_gguf {
            Format::Gguf(FileType::F16)
        } else {
            Format::Mlx
        },
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
