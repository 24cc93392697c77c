//! Prints how the released models widen with depth, and defines a new architecture: `cargo run
//! --example architecture`.
#![allow(clippy::print_stdout)] // Printing is what an example does.

use openelm_core::{
    Config, Result,
    config::{LayerWiseConfig, Multipliers, Preset},
};

fn main() -> Result<()> {
    for preset in Preset::ALL {
        print_layers(preset.name(), &preset.config());
    }
    let small = LayerWiseConfig {
        model_dim: 256,
        num_transformer_layers: 8,
        head_dim: 32,
        num_gqa_groups: Some(2),
        ffn_multipliers: Multipliers::Range(0.5, 4.0),
        ffn_dim_divisor: 64,
        vocab_size: 4096,
        max_context_length: 512,
        ..Preset::Size270M.settings()
    };
    let small = Config::layer_wise(small)?;
    print_layers("custom", &small);
    println!("its config.json:\n{}", small.to_json());
    Ok(())
}

fn print_layers(name: &str, config: &Config) {
    let heads: Vec<usize> = config.layers().iter().map(|layer| layer.q_heads).collect();
    let widths: Vec<usize> = config.layers().iter().map(|layer| layer.ffn_dim).collect();
    println!("{name}: {} parameters", config.parameter_count());
    println!("  query heads {heads:?}\n  FFN widths  {widths:?}");
}
