//! Architecture options of `openelm pretrain`.

use openelm_core::{
    Tokenizer,
    config::{LayerWiseConfig, Multipliers, Preset},
    pretrain::new_architecture,
};
use serde::Deserialize;

use crate::choices::parsed;

/// The architecture, with the names of Hugging Face's config.json.
#[derive(clap::Args, Deserialize, Default, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub(super) struct Architecture {
    /// Preset to start from: 270M, 450M, 1_1B or 3B; the options below override parts of it
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "parsed")]
    pub(super) preset: Option<Preset>,

    #[arg(long, value_name = "N", help = with_default("Layers", |c| c.num_transformer_layers))]
    #[serde(alias = "num_layers")]
    pub(super) num_transformer_layers: Option<usize>,

    #[arg(long, value_name = "N", help = with_default(
        "Model width (residual stream)", |c| c.model_dim
    ))]
    pub(super) model_dim: Option<usize>,

    #[arg(long, value_name = "N", help = with_default(
        "Width of an attention head", |c| c.head_dim
    ))]
    pub(super) head_dim: Option<usize>,

    #[arg(long, value_name = "N", help = with_default(
        "Query heads per key-value head", |c| c.num_gqa_groups.unwrap_or(1)
    ))]
    pub(super) num_gqa_groups: Option<usize>,

    #[arg(long, value_name = "X,X", value_delimiter = ',', help = with_default(
        "Total width of the query heads over model_dim, in the first and last layer (or one value)",
        |c| multipliers_text(&c.qkv_multipliers)
    ))]
    pub(super) qkv_multipliers: Option<Vec<f64>>,

    #[arg(long, value_name = "X,X", value_delimiter = ',', help = with_default(
        "FFN hidden width over model_dim, in the first and last layer (or one value)",
        |c| multipliers_text(&c.ffn_multipliers)
    ))]
    pub(super) ffn_multipliers: Option<Vec<f64>>,

    #[arg(long, value_name = "N", help = with_default(
        "Divisor of the FFN hidden width", |c| c.ffn_dim_divisor
    ))]
    pub(super) ffn_dim_divisor: Option<usize>,

    /// Vocabulary size, the rows of the embedding [default: the tokenizer's vocabulary]
    #[arg(long, value_name = "N")]
    pub(super) vocab_size: Option<usize>,

    #[arg(long, value_name = "N", help = with_default(
        "Context length, in tokens", |c| c.max_context_length
    ))]
    pub(super) max_context_length: Option<usize>,

    #[arg(long, value_name = "X", help = with_default(
        "Base of the rotary frequencies (RoPE theta)", |c| c.rope_freq_constant
    ))]
    pub(super) rope_freq_constant: Option<f64>,

    #[arg(long, value_name = "BOOL", help = with_default(
        "Tie the output head to the embedding", |c| c.share_input_output_layers
    ))]
    pub(super) share_input_output_layers: Option<bool>,
}

/// `help` with the default value of a model without a preset.
fn with_default<T: ToString>(help: &str, default: fn(LayerWiseConfig) -> T) -> String {
    let default = default(LayerWiseConfig::default()).to_string();
    format!("{help} [default: {default}]")
}

fn multipliers_text(multipliers: &Multipliers) -> String {
    match multipliers {
        Multipliers::Uniform(one) => one.to_string(),
        Multipliers::Range(first, last) => format!("{first},{last}"),
        Multipliers::PerLayer(all) => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(",")
        }
    }
}

impl Architecture {
    /// The architecture of a new model for `tokenizer`.
    pub(super) fn layer_wise(&self, tokenizer: &Tokenizer) -> LayerWiseConfig {
        new_architecture(self.preset, tokenizer, |config| self.change(config))
    }

    fn change(&self, config: &mut LayerWiseConfig) {
        macro_rules! set {
            ($($option:ident)*) => {
                $(if let Some(value) = self.$option { config.$option = value; })*
            };
        }
        set! {
            num_transformer_layers model_dim head_dim ffn_dim_divisor vocab_size max_context_length
            rope_freq_constant share_input_output_layers
        }
        if self.num_gqa_groups.is_some() {
            config.num_gqa_groups = self.num_gqa_groups;
        }
        let multipliers = |list: &[f64]| match list {
            [one] => Multipliers::Uniform(*one),
            [first, last] => Multipliers::Range(*first, *last),
            all => Multipliers::PerLayer(all.to_vec()),
        };
        if let Some(list) = &self.qkv_multipliers {
            config.qkv_multipliers = multipliers(list);
        }
        if let Some(list) = &self.ffn_multipliers {
            config.ffn_multipliers = multipliers(list);
        }
    }
}
