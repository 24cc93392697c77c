//! `openelm fuse`: an adapter and its model made one model.

use std::path::PathBuf;

use openelm_core::{
    CancelHandle,
    adapter::Adapter,
    convert::{ConvertOptions, FileType, Format, convert},
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

    /// Model folder to make, or GGUF file
    #[arg(long, value_name = "FOLDER", default_value = "fused_model")]
    save_path: PathBuf,

    /// Expand a quantised model; otherwise what the adapter changes is quantised again
    #[arg(long, alias = "de-quantize", short)]
    dequantize: bool,

    /// Type to store in [default: as the model is stored]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Replace what is there
    #[arg(long)]
    force: bool,

    /// Say nothing
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
    let interrupt = Interrupt::install()?;
    let cancel = CancelHandle::default();
    interrupt.cancels(cancel.clone());
    let report = convert(&args.model, &args.save_path, &options, &cancel, |_| {});
    let report = match report {
        Err(openelm_core::Error::Cancelled) => return Err(Error::Interrupted),
        other => other?,
    };
    if !args.quiet {
        output::tell(&format!(
            "fused into {}: {}, compared with model and adapter",
            args.save_path.display(),
            output::bytes(report.bytes),
        ));
    }
    Ok(())
}
