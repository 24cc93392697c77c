//! `openelm info`: architecture, parameters and memory of a model folder or a preset.

use std::{cmp::Reverse, fmt::Write, path::Path};

use clap::builder::NonEmptyStringValueParser;
use openelm_core::{
    Config, Dtype,
    config::Preset,
    one_line,
    quantization::Quantization,
    weights::{Checkpoint, model_folder},
};
use serde_json::json;

use crate::{
    error::Error,
    hub::{self, Files},
    output,
};

/// Arguments of `openelm info`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  openelm info OpenELM-270M-Instruct\n  openelm info 3B --json")]
pub(crate) struct Args {
    /// Model folder, a preset (270M, 450M, 1_1B or 3B), or a repository of the Hub: its architecture,
    /// and its weights if the cache has them
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: String,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let (config, stored) = find(&args.model)?;
    if args.json {
        return output::write_json(&to_json(&args.model, &config, stored.as_ref()));
    }
    output::write(table(&args.model, &config, stored.as_ref()).as_bytes())
}

/// The stored weights of a folder.
struct Stored {
    dtype: Dtype,
    bits_per_weight: f64,
    /// Numbers of quantised matrices, by their form.
    quantized: Vec<(Quantization, usize)>,
}

/// The architecture and, for a folder with weights, their form.
fn find(model: &str) -> Result<(Config, Option<Stored>), Error> {
    if Path::new(model).symlink_metadata().is_err()
        && let Ok(preset) = model.parse::<Preset>()
    {
        return Ok((preset.config(), None));
    }
    let folder = model_folder(hub::local(Path::new(model), &Files::Config, false)?)?;
    let config = Config::load(&folder)?;
    let has_weights = ["model.safetensors", "model.safetensors.index.json"]
        .iter()
        .any(|name| folder.join(name).symlink_metadata().is_ok());
    if !has_weights {
        return Ok((config, None));
    }
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.check(&config)?;
    let bits = checkpoint.bytes() as f64 * 8.0;
    let stored = Stored {
        dtype: checkpoint.dtype(),
        bits_per_weight: bits / config.parameter_count() as f64,
        quantized: quantized(&config, &checkpoint)?,
    };
    Ok((config, Some(stored)))
}

/// Numbers of quantised matrices, the most frequent form first. A matrix with scales is quantised.
fn quantized(
    config: &Config,
    checkpoint: &Checkpoint,
) -> Result<Vec<(Quantization, usize)>, Error> {
    let Some(map) = config.quantization_map()? else {
        return Ok(Vec::new());
    };
    let names = checkpoint.tensors().keys();
    let packed = names.filter_map(|name| name.strip_suffix(".scales"));
    let mut counts: Vec<(Quantization, usize)> = Vec::new();
    for form in packed.filter_map(|name| map.layer(name)) {
        match counts.iter_mut().find(|(known, _)| *known == form) {
            Some((_, count)) => *count += 1,
            None => counts.push((form, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| Reverse(*count));
    Ok(counts)
}

fn table(model: &str, config: &Config, stored: Option<&Stored>) -> String {
    let on_off = |on| if on { "yes" } else { "no" };
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<22}{value}");
    };
    row("model", one_line(model));
    row("parameters", output::grouped(config.parameter_count()));
    if let Some(stored) = stored {
        row("stored as", stored.dtype.to_string());
        let bits = stored.bits_per_weight;
        row("bits per weight", format!("{bits:.2}"));
        for (form, count) in &stored.quantized {
            let (mode, bits) = (form.mode().name(), form.bits());
            let group = form.group_size();
            row(
                "quantisation",
                format!("{mode}, {bits} bits in groups of {group}: {count} matrices"),
            );
        }
    }
    row("layers", config.num_transformer_layers().to_string());
    row("width", config.model_dim().to_string());
    row("head_dim", config.head_dim().to_string());
    row("vocabulary", output::grouped(config.vocab_size() as u64));
    row("context", format!("{} tokens", config.max_context_length()));
    row(
        "tied embedding",
        on_off(config.share_input_output_layers()).into(),
    );
    row("QK norm", on_off(config.normalize_qk_projections()).into());
    row("gated feed-forward", on_off(config.ffn_with_glu()).into());
    row("RoPE base", config.rope_freq_constant().to_string());
    row("RMSNorm eps", config.rms_norm_eps().to_string());
    for (name, size) in [("weights in float32", 4), ("weights in 16 bits", 2)] {
        row(name, output::bytes(config.weights_bytes(size)));
    }
    let context = config.max_context_length() as u64;
    for (name, size) in [("KV cache in float32", 4), ("KV cache in 16 bits", 2)] {
        let token = config.kv_bytes_per_token(size);
        let full = output::bytes(token.saturating_mul(context));
        row(
            name,
            format!(
                "{} per token, {full} for the full context",
                output::bytes(token)
            ),
        );
    }
    let _ = writeln!(out, "\nlayer  query heads  KV heads  FFN width  parameters");
    for (i, layer) in config.layers().iter().enumerate() {
        let _ = writeln!(
            out,
            "{i:>5}{:>13}{:>10}{:>11}{:>12}",
            layer.q_heads,
            layer.kv_heads,
            layer.ffn_dim,
            output::grouped(layer_parameters(config, i)),
        );
    }
    out
}

fn to_json(model: &str, config: &Config, stored: Option<&Stored>) -> serde_json::Value {
    let layers: Vec<_> = config
        .layers()
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            json!({
                "q_heads": layer.q_heads,
                "kv_heads": layer.kv_heads,
                "ffn_dim": layer.ffn_dim,
                "parameters": layer_parameters(config, i),
            })
        })
        .collect();
    json!({
        "model": model,
        "parameters": config.parameter_count(),
        "stored_dtype": stored.map(|stored| stored.dtype.to_string()),
        "bits_per_weight": stored.map(|stored| stored.bits_per_weight),
        "quantization": stored.map(|stored| {
            let forms = stored.quantized.iter();
            let forms = forms.map(|(form, count)| json!({
                "mode": form.mode().name(),
                "bits": form.bits(),
                "group_size": form.group_size(),
                "matrices": count,
            }));
            forms.collect::<Vec<_>>()
        }),
        "num_transformer_layers": config.num_transformer_layers(),
        "model_dim": config.model_dim(),
        "head_dim": config.head_dim(),
        "vocab_size": config.vocab_size(),
        "max_context_length": config.max_context_length(),
        "share_input_output_layers": config.share_input_output_layers(),
        "normalize_qk_projections": config.normalize_qk_projections(),
        "ffn_with_glu": config.ffn_with_glu(),
        "rope_freq_constant": config.rope_freq_constant(),
        "rms_norm_eps": config.rms_norm_eps(),
        "weights_bytes": { "float32": config.weights_bytes(4), "16-bit": config.weights_bytes(2) },
        "kv_bytes_per_token": {
            "float32": config.kv_bytes_per_token(4),
            "16-bit": config.kv_bytes_per_token(2),
        },
        "layers": layers,
    })
}

fn layer_parameters(config: &Config, index: usize) -> u64 {
    let prefix = format!("transformer.layers.{index}.");
    config
        .tensors()
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>())
        .sum()
}
