//! `openelm convert`: any OpenELM checkpoint to MLX, Hugging Face or GGUF.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use openelm_core::{
    CancelHandle,
    convert::{
        self, Conversion, ConvertEvent, ConvertOptions, ConvertReport, FileType, Format, LayerRule,
        Plan, Quantize, TokenizerChoice,
    },
    one_line,
    output::check_inputs,
    quantization::Quantization,
};
use serde_json::json;

use crate::{
    bar::{bar, style},
    choices::{self, Dtype, GgufType, QuantMode, QuantRecipe, Verify},
    error::Error,
    given::Given,
    hub,
    interrupt::Interrupt,
    output,
};

/// Arguments of `openelm convert`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    /// Hugging Face, mlx-lm or MLX folder, CoreNet .pt file, GGUF file, a repository of the Hub, or
    /// a file in one (owner/name/model.gguf)
    source: PathBuf,

    /// Folder, GGUF file or .pt file to write
    #[arg(required_unless_present = "dry_run")]
    target: Option<PathBuf>,

    /// Output format: MLX, Hugging Face, GGUF (llama.cpp), CoreNet's .pt, or the folder of CoreNet's
    /// MLX example [default: gguf or corenet if TARGET ends in .gguf or .pt, else mlx]
    #[arg(long, value_name = "FORMAT")]
    to: Option<choices::Format>,

    /// Data type of the weights [default: as stored]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    dtype: Option<Dtype>,

    /// Quantise, by default to 4 bits in groups of 64
    #[arg(long, short)]
    quantize: bool,

    /// Bits per weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, value_name = "N", requires = "quantize")]
    q_bits: Option<usize>,

    /// Group size, the number of weights per scale: 32, 64 or 128
    #[arg(long, value_name = "N", requires = "quantize")]
    q_group_size: Option<usize>,

    /// Quantisation mode
    #[arg(long, value_name = "MODE", requires = "quantize", default_value_t = QuantMode::Affine)]
    q_mode: QuantMode,

    /// Mixed-bit recipe, with more bits for sensitive layers
    #[arg(
        long,
        alias = "quant-predicate",
        value_name = "RECIPE",
        requires = "quantize",
        conflicts_with = "q_bits"
    )]
    q_recipe: Option<QuantRecipe>,

    /// Bits for matrices whose names match a regular expression, as in 'ffn.proj_2=6'; may be
    /// repeated, the first match applies
    #[arg(long, value_name = "REGEX=BITS", requires = "quantize")]
    q_layer: Vec<LayerRule>,

    /// Dequantise the source's matrices
    #[arg(long, short, conflicts_with = "quantize")]
    dequantize: bool,

    /// Data type of a GGUF file [default: f16]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    gguf_type: Option<GgufType>,

    /// Architecture of a CoreNet checkpoint: 270M, 450M, 1_1B, 3B, a config.json or CoreNet's .yaml
    /// [default: the released size with the same shapes]
    #[arg(long, value_name = "NAME|FILE", value_parser = architecture)]
    architecture: Option<Architecture>,

    /// Use the moving average of the weights (EMA) of a training checkpoint
    #[arg(long)]
    ema: bool,

    /// Keep the 128 padding rows of a CoreNet checkpoint's embedding
    #[arg(long)]
    keep_padding_rows: bool,

    /// Tokenizer to include: a tokenizer.json, LLaMA's tokenizer.model, a folder or repository with
    /// one, or auto [default: the source's tokenizer]
    #[arg(long, value_name = "PATH|REPO", conflicts_with = "no_tokenizer")]
    tokenizer: Option<PathBuf>,

    /// Omit the tokenizer
    #[arg(long)]
    no_tokenizer: bool,

    /// Maximum size of a weight file, as in 5GB or 500MB
    #[arg(long, value_name = "SIZE", default_value = shard_size(), value_parser = size)]
    max_shard_size: u64,

    /// Replace the model folder or file at TARGET; other files in the folder stay
    #[arg(long)]
    force: bool,

    /// Verification: compare every tensor and the predictions of both models (forward), or nothing
    /// (none)
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = verify())]
    verify: Verify,

    /// Print the tensors that would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// No progress bar and no report
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm convert OpenELM-270M OpenELM-270M-4bit -q --tokenizer Llama-2-7b-hf
  openelm convert OpenELM-3B OpenELM-3B-mixed -q --q-recipe mixed_4_6
  openelm convert OpenELM-270M OpenELM-270M-mxfp4 -q --q-mode mxfp4
  openelm convert OpenELM-270M-4bit OpenELM-270M-bf16 --dequantize --dtype bfloat16
  openelm convert corenet/checkpoint_average.pt OpenELM-450M --architecture 450M --tokenizer tokenizer.model
  openelm convert OpenELM-270M OpenELM-270M.gguf --gguf-type q8_0
  openelm convert OpenELM-270M OpenELM-270M.pt --no-tokenizer
  openelm convert OpenELM-270M --dry-run -q";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let mut options = options(&args)?;
    args.source = hub::local_source(&args.source, args.quiet)?;
    if let Some(given) = &args.tokenizer {
        let tokenizer = hub::tokenizer(given, &args.source, args.quiet)?;
        options.tokenizer = tokenizer.map_or(TokenizerChoice::OfSource, TokenizerChoice::Path);
    }
    let Some(target) = args.target.as_ref().filter(|_| !args.dry_run) else {
        let plan = convert::plan(&args.source, &options)?;
        return show_plan(&plan, args.json);
    };
    let architecture = args.architecture.as_ref();
    let architecture = architecture.map(|given| ("--architecture", given.place.as_path()));
    check_inputs(target, architecture)?;
    write(&args.source, target, &options, args.quiet, args.json)
}

/// Converts `source` to `target` with a progress bar, and prints the report.
pub(crate) fn write(
    source: &Path,
    target: &Path,
    options: &ConvertOptions,
    quiet: bool,
    json: bool,
) -> Result<(), Error> {
    let conversion = Conversion::open(source, options)?;
    let cancel = CancelHandle::default();
    let interrupt = Interrupt::cancelling(cancel.clone())?;
    let bar = bar(
        quiet,
        "converting {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {eta} left",
    );
    let mut verifying = false;
    let report = conversion.write(target, &cancel, |event| match event {
        ConvertEvent::Written { done, total, .. } => {
            bar.set_length(total);
            bar.set_position(done);
        }
        ConvertEvent::Verifying { done, total } => {
            if !verifying {
                verifying = true;
                bar.set_style(style(
                    "verifying  {wide_bar} {pos}/{len} tensors, {eta} left",
                ));
                bar.reset();
            }
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    let report = interrupt.result(report)?;
    let shown = if json {
        output::write_json(&serde_json::to_value(&report).unwrap_or_default())
    } else if quiet {
        Ok(())
    } else {
        output::write(table(&report).as_bytes())
    };
    shown.map_err(|error| error.unreported(|| format!("{} is complete", target.display())))
}

/// An architecture, and its name or file.
#[derive(Clone)]
pub(crate) struct Architecture {
    pub(crate) config: openelm_core::Config,
    pub(crate) place: PathBuf,
}

pub(crate) fn architecture(text: &str) -> Result<Architecture, openelm_core::Error> {
    Ok(Architecture {
        config: convert::parse_architecture(text)?,
        place: text.into(),
    })
}

/// The default of --verify.
fn verify() -> Verify {
    if ConvertOptions::default().verify {
        Verify::Forward
    } else {
        Verify::None
    }
}

/// The default of --max-shard-size.
pub(crate) fn shard_size() -> String {
    format!(
        "{}GB",
        ConvertOptions::default().max_shard_bytes as f64 / 1e9
    )
}

fn options(args: &Args) -> Result<ConvertOptions, Error> {
    let gguf_type = args.gguf_type.map(Into::into);
    let format = match args.to {
        Some(choices::Format::Gguf) => Format::Gguf(gguf_type.unwrap_or(FileType::F16)),
        Some(_) if args.gguf_type.is_some() => {
            return Err(Error::Usage("--gguf-type requires --to gguf".into()));
        }
        Some(choices::Format::Mlx) => Format::Mlx,
        Some(choices::Format::Hf) => Format::HuggingFace,
        Some(choices::Format::CoreNet) => Format::CoreNet,
        Some(choices::Format::CoreNetMlx) => Format::CoreNetMlx,
        None => Format::of_target(args.target.as_deref(), gguf_type),
    };
    let is_gguf = matches!(format, Format::Gguf(_));
    check_gguf(args, is_gguf)?;
    let is_one_file = format.is_file() || format == Format::CoreNetMlx;
    let reason = "on a format with one weight file";
    let names = ["q-bits", "q-group-size", "q-mode", "q-recipe", "q-layer"];
    args.given.check(&[
        (is_one_file, &["max-shard-size"], reason),
        // clap's `requires` has no effect beside --dequantize.
        (!args.quantize, &names, "without --quantize"),
    ])?;
    let quantize = if args.quantize {
        Some(Quantize {
            quantization: Quantization::new(args.q_mode.into(), args.q_bits, args.q_group_size)?,
            recipe: args.q_recipe.map(Into::into),
            layers: args.q_layer.clone(),
        })
    } else {
        None
    };
    Ok(ConvertOptions {
        format,
        dtype: args.dtype.map(Into::into),
        quantize,
        dequantize: args.dequantize,
        architecture: args.architecture.clone().map(|given| given.config),
        ema: args.ema,
        keep_padding_rows: args.keep_padding_rows,
        tokenizer: match &args.tokenizer {
            Some(path) => TokenizerChoice::Path(path.clone()),
            None if args.no_tokenizer => TokenizerChoice::Without,
            None => TokenizerChoice::OfSource,
        },
        max_shard_bytes: args.max_shard_size,
        adapter: None,
        average_with: Vec::new(),
        force: args.force,
        verify: args.verify == Verify::Forward,
    })
}

/// Refuses options that contradict the format of the target.
fn check_gguf(args: &Args, is_gguf: bool) -> Result<(), Error> {
    let refuse = |problem: &str| Err(Error::Usage(problem.into()));
    if is_gguf && args.quantize {
        return refuse("--quantize: not for GGUF; use --gguf-type q8_0 or q4_0 instead");
    }
    if is_gguf && args.dtype.is_some() {
        return refuse("--dtype: not for GGUF; use --gguf-type f32, f16 or bf16 instead");
    }
    let named = Format::of_target(args.target.as_deref(), None);
    let is_named = matches!(named, Format::Gguf(_)) || args.target.is_none();
    if args.to.is_none() && args.gguf_type.is_some() && !is_named {
        return refuse("--gguf-type: TARGET does not end in .gguf; --to gguf allows other names");
    }
    Ok(())
}

/// Reads `5GB`, `500MB`, `1000kB` or a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("GB", 1e9),
        ("MB", 1e6),
        ("kB", 1e3),
        ("KB", 1e3),
        ("", 1.0),
    ];
    let found = units
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let (number, unit) = found.unwrap_or((text, &1.0));
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number * unit >= 1.0 => Ok((number * unit) as u64),
        _ => Err(format!(
            "expected a size such as 5GB or 500MB, found {text}"
        )),
    }
}

fn show_plan(plan: &Plan, as_json: bool) -> Result<(), Error> {
    if as_json {
        return output::write_json(&json!({
            "source_format": plan.source_format,
            "source_bytes": plan.source_bytes,
            "parameters": plan.config.parameter_count(),
            "bytes": plan.bytes(),
            "bits_per_weight": plan.bits_per_weight(),
            "tensors": plan.tensors,
        }));
    }
    let width = |of: fn(&convert::PlannedTensor) -> &str| {
        plan.tensors
            .iter()
            .map(|tensor| of(tensor).len())
            .max()
            .unwrap_or(0)
    };
    let (from, to) = (width(|tensor| &tensor.source), width(|tensor| &tensor.name));
    let mut text = String::new();
    for tensor in &plan.tensors {
        let _ = writeln!(
            text,
            "{:from$}  {:to$}  {:4}  {:>8}  {:?}",
            tensor.source,
            tensor.name,
            tensor.dtype,
            output::bytes(tensor.bytes),
            tensor.shape,
        );
    }
    let _ = writeln!(
        text,
        "{}, {} parameters: {} become {} in {} tensors, {:.2} bits per weight",
        plan.source_format,
        output::grouped(plan.config.parameter_count()),
        output::bytes(plan.source_bytes),
        output::bytes(plan.bytes()),
        plan.tensors.len(),
        plan.bits_per_weight(),
    );
    output::write(text.as_bytes())
}

fn table(report: &ConvertReport) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<12}{value}");
    };
    line(
        "source",
        format!(
            "{}, {}",
            report.source_format,
            output::bytes(report.source_bytes)
        ),
    );
    line(
        "written",
        format!(
            "{}, {} in {} tensors, {:.2} bits per weight, {:.1} s",
            one_line(&report.target.display().to_string()),
            output::bytes(report.bytes),
            report.tensors,
            report.bits_per_weight,
            report.seconds,
        ),
    );
    let Some(verification) = &report.verification else {
        line("verified", "no (--verify none)".into());
        return text;
    };
    let checks = verification.tensors;
    let counts = [
        (checks.identical, "identical"),
        (checks.rounded, "within one rounding"),
        (checks.quantized, "quantised"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    line(
        "verified",
        format!(
            "tensors: {}; {:.1} s",
            counts.join(", "),
            verification.seconds
        ),
    );
    line(
        "predictions",
        format!(
            "KL divergence {:.2e} (largest {:.2e}), top-1 agreement {:.1} %, logits within {:.2e}",
            verification.mean_kl,
            verification.max_kl,
            verification.top1_agreement * 100.0,
            verification.max_logit_difference,
        ),
    );
    let on = if verification.text {
        "tokens of English text"
    } else {
        "random tokens"
    };
    line("", format!("on {} {on}", verification.tokens));
    for (i, tensor) in verification.worst.iter().enumerate() {
        line(
            if i == 0 { "worst" } else { "" },
            format!(
                "{:<44} relative error {:.2e}, largest {:.2e}",
                tensor.name, tensor.relative_error, tensor.max_error
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes() {
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("0.5 MB"), Ok(500_000));
        assert_eq!(size("12"), Ok(12));
        for bad in ["", "GB", "-1GB", "0", "nanGB", "5TB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
