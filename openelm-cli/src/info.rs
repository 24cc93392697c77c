//! `openelm info`: architecture, parameters and memory of a model folder or a preset.

use std::{fmt::Write, path::Path};

use clap::builder::NonEmptyStringValueParser;
use openelm_core::{
    Config, Dtype,
    config::Preset,
    weights::{Checkpoint, model_folder},
};
use serde_json::json;

use crate::{error::Error, output};

/// Arguments of `openelm info`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  openelm info OpenELM-270M-Instruct\n  openelm info 3B --json")]
pub(crate) struct Args {
    /// Model folder or a preset: 270M, 450M, 1_1B or 3B
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
        return output::write_json(&to_json(&args.model, &config, stored));
    }
    output::write(table(&args.model, &config, stored).as_bytes())
}

/// The architecture and, for a folder with weights, their stored dtype.
fn find(model: &str) -> Result<(Config, Option<Dtype>), Error> {
    if !Path::new(model).exists()
        && let Ok(preset) = model.parse::<Preset>()
    {
        return Ok((preset.config(), None));
    }
    let folder = model_folder(model)?;
    let config = Config::load(&folder)?;
    let has_weights = ["model.safetensors", "model.safetensors.index.json"]
        .iter()
        .any(|name| folder.join(name).exists());
    if !has_weights {
        return Ok((config, None));
    }
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.check(&config)?;
    Ok((config, Some(checkpoint.dtype())))
}

fn table(model: &str, config: &Config, stored: Option<Dtype>) -> String {
    let on_off = |on| if on { "yes" } else { "no" };
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<22}{value}");
    };
    row("model", model.into());
    row("parameters", output::grouped(config.parameter_count()));
    if let Some(stored) = stored {
        row("stored as", stored.to_string());
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

fn to_json(model: &str, config: &Config, stored: Option<Dtype>) -> serde_json::Value {
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
        "stored_dtype": stored.map(|dtype| dtype.to_string()),
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
