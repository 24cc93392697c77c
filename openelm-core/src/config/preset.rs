//! The four released model sizes.
//!
//! OpenELM, <https://arxiv.org/abs/2404.14619>; the settings follow CoreNet's
//! `general_gpt.py`. The Base and Instruct models of a size have the same architecture.

use std::{fmt, str::FromStr};

use super::{config::Config, layer_wise::LayerWiseConfig};
use crate::error::{Error, Result};

/// A released size of OpenELM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 16 layers of width 1280, 271,527,168 parameters.
    Size270M,
    /// 20 layers of width 1536, 457,179,136 parameters.
    Size450M,
    /// 28 layers of width 2048, 1,079,891,456 parameters.
    Size1_1B,
    /// 36 layers of width 3072, 3,036,647,424 parameters.
    Size3B,
}

impl Preset {
    /// All sizes, smallest first.
    pub const ALL: [Self; 4] = [Self::Size270M, Self::Size450M, Self::Size1_1B, Self::Size3B];

    /// Name of the base model's Hugging Face repository.
    pub fn name(self) -> &'static str {
        match self {
            Self::Size270M => "OpenELM-270M",
            Self::Size450M => "OpenELM-450M",
            Self::Size1_1B => "OpenELM-1_1B",
            Self::Size3B => "OpenELM-3B",
        }
    }

    /// The architecture with Hugging Face's vocabulary of 32,000.
    pub fn config(self) -> Config {
        // The settings are constants within their ranges and need no check.
        Config::scale(self.settings())
    }

    /// The architecture with `vocab_size` rows of the embedding.
    pub(crate) fn with_vocab(self, vocab_size: usize) -> Result<Config> {
        Config::layer_wise(LayerWiseConfig {
            vocab_size,
            ..self.settings()
        })
    }

    /// The architecture with `vocab_size` rows of which `has` accepts all tensors: it takes a name of
    /// Hugging Face's layout and the shape.
    pub(crate) fn with_tensors(
        vocab_size: usize,
        has: impl Fn(&str, &[usize]) -> bool,
    ) -> Option<Config> {
        let configs = Self::ALL
            .into_iter()
            .filter_map(|preset| preset.with_vocab(vocab_size).ok());
        let mut fitting = configs.filter(|config| {
            let tensors = config.tensors();
            tensors.iter().all(|(name, shape)| has(name, shape))
        });
        fitting.next()
    }

    /// The settings of the architecture, as a base for variants.
    ///
    /// ```
    /// use openelm_core::{Config, config::LayerWiseConfig};
    /// use openelm_core::config::Preset;
    ///
    /// // CoreNet's own checkpoints have 32,128 rows.
    /// let corenet = LayerWiseConfig { vocab_size: 32_128, ..Preset::Size270M.settings() };
    /// assert_eq!(Config::layer_wise(corenet)?.parameter_count(), 271_691_008);
    /// # Ok::<(), openelm_core::Error>(())
    /// ```
    pub fn settings(self) -> LayerWiseConfig {
        let (model_dim, num_transformer_layers, head_dim) = match self {
            Self::Size270M => (1280, 16, 64),
            Self::Size450M => (1536, 20, 64),
            Self::Size1_1B => (2048, 28, 64),
            Self::Size3B => (3072, 36, 128),
        };
        LayerWiseConfig {
            model_dim,
            num_transformer_layers,
            head_dim,
            ..LayerWiseConfig::default()
        }
    }
}

/// The name of the size in the paper's tables.
impl fmt::Display for Preset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Size270M => "OpenELM 0.27 B",
            Self::Size450M => "OpenELM 0.45 B",
            Self::Size1_1B => "OpenELM 1.08 B",
            Self::Size3B => "OpenELM 3.04 B",
        })
    }
}

/// Reads the short name (`270M`, `1_1B`, `1.1B`), the repository's name
/// (`apple/OpenELM-3B-Instruct`) or the paper's name, case-insensitively.
impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let name = lower
            .rsplit_once('/')
            .map_or(lower.as_str(), |(_, name)| name);
        let name = name.strip_prefix("openelm").map_or(name, |rest| {
            rest.strip_prefix(['-', '_', ' ']).unwrap_or(rest)
        });
        match name.strip_suffix("-instruct").unwrap_or(name) {
            "270m" | "0.27 b" => Ok(Self::Size270M),
            "450m" | "0.45 b" => Ok(Self::Size450M),
            "1_1b" | "1.1b" | "1.08 b" => Ok(Self::Size1_1B),
            "3b" | "3.04 b" => Ok(Self::Size3B),
            _ => Err(Error::option(
                "preset",
                format!("expected 270M, 450M, 1_1B or 3B, found {text:?}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::config::Layer;

    /// Multipliers of heads and FFN, query heads, KV heads and FFN width of one layer.
    type Row = (f64, f64, usize, usize, usize);

    fn assert_layers(preset: Preset, rows: &[Row]) {
        let config = preset.config();
        assert_eq!(config.layers().len(), rows.len(), "{preset}");
        let settings = preset.settings();
        let qkv = settings.qkv_multipliers.per_layer(rows.len());
        let ffn = settings.ffn_multipliers.per_layer(rows.len());
        for (i, &(qkv_multiplier, ffn_multiplier, q_heads, kv_heads, ffn_dim)) in
            rows.iter().enumerate()
        {
            assert_eq!(
                (qkv[i], ffn[i]),
                (qkv_multiplier, ffn_multiplier),
                "{preset}, layer {i}"
            );
            assert_eq!(
                config.layers()[i],
                Layer {
                    q_heads,
                    kv_heads,
                    ffn_dim
                },
                "{preset}, layer {i}"
            );
        }
    }

    /// Parameters of the layers, first to last.
    fn layer_parameters(config: &Config) -> Vec<u64> {
        let tensors = config.tensors();
        let of_layer = |i| {
            let prefix = format!("transformer.layers.{i}.");
            let parts = tensors.iter().filter(|(name, _)| name.starts_with(&prefix));
            parts
                .map(|(_, shape)| shape.iter().product::<usize>() as u64)
                .sum()
        };
        (0..config.num_transformer_layers()).map(of_layer).collect()
    }

    #[rustfmt::skip]
    const M270: [Row; 16] = [
        (0.5, 0.5, 12, 3, 768), (0.53, 0.73, 12, 3, 1024), (0.57, 0.97, 12, 3, 1280),
        (0.6, 1.2, 12, 3, 1536), (0.63, 1.43, 12, 3, 1792), (0.67, 1.67, 16, 4, 2048),
        (0.7, 1.9, 16, 4, 2560), (0.73, 2.13, 16, 4, 2816), (0.77, 2.37, 16, 4, 3072),
        (0.8, 2.6, 16, 4, 3328), (0.83, 2.83, 16, 4, 3584), (0.87, 3.07, 16, 4, 3840),
        (0.9, 3.3, 20, 5, 4352), (0.93, 3.53, 20, 5, 4608), (0.97, 3.77, 20, 5, 4864),
        (1.0, 4.0, 20, 5, 5120),
    ];

    #[rustfmt::skip]
    const M450: [Row; 20] = [
        (0.5, 0.5, 12, 3, 768), (0.53, 0.68, 12, 3, 1024), (0.55, 0.87, 12, 3, 1280),
        (0.58, 1.05, 16, 4, 1536), (0.61, 1.24, 16, 4, 1792), (0.63, 1.42, 16, 4, 2304),
        (0.66, 1.61, 16, 4, 2560), (0.68, 1.79, 16, 4, 2816), (0.71, 1.97, 16, 4, 3072),
        (0.74, 2.16, 16, 4, 3328), (0.76, 2.34, 20, 5, 3584), (0.79, 2.53, 20, 5, 3840),
        (0.82, 2.71, 20, 5, 4096), (0.84, 2.89, 20, 5, 4352), (0.87, 3.08, 20, 5, 4608),
        (0.89, 3.26, 20, 5, 5120), (0.92, 3.45, 24, 6, 5376), (0.95, 3.63, 24, 6, 5632),
        (0.97, 3.82, 24, 6, 5888), (1.0, 4.0, 24, 6, 6144),
    ];

    #[rustfmt::skip]
    const B1_1: [Row; 28] = [
        (0.5, 0.5, 16, 4, 1024), (0.52, 0.63, 16, 4, 1280), (0.54, 0.76, 16, 4, 1536),
        (0.56, 0.89, 20, 5, 1792), (0.57, 1.02, 20, 5, 2048), (0.59, 1.15, 20, 5, 2304),
        (0.61, 1.28, 20, 5, 2560), (0.63, 1.41, 20, 5, 2816), (0.65, 1.54, 20, 5, 3072),
        (0.67, 1.67, 20, 5, 3328), (0.69, 1.8, 24, 6, 3584), (0.7, 1.93, 24, 6, 3840),
        (0.72, 2.06, 24, 6, 4096), (0.74, 2.19, 24, 6, 4608), (0.76, 2.31, 24, 6, 4608),
        (0.78, 2.44, 24, 6, 5120), (0.8, 2.57, 24, 6, 5376), (0.81, 2.7, 24, 6, 5632),
        (0.83, 2.83, 28, 7, 5888), (0.85, 2.96, 28, 7, 6144), (0.87, 3.09, 28, 7, 6400),
        (0.89, 3.22, 28, 7, 6656), (0.91, 3.35, 28, 7, 6912), (0.93, 3.48, 28, 7, 7168),
        (0.94, 3.61, 32, 8, 7424), (0.96, 3.74, 32, 8, 7680), (0.98, 3.87, 32, 8, 7936),
        (1.0, 4.0, 32, 8, 8192),
    ];

    #[rustfmt::skip]
    const B3: [Row; 36] = [
        (0.5, 0.5, 12, 3, 1536), (0.51, 0.6, 12, 3, 1792), (0.53, 0.7, 12, 3, 2048),
        (0.54, 0.8, 12, 3, 2560), (0.56, 0.9, 16, 4, 2816), (0.57, 1.0, 16, 4, 3072),
        (0.59, 1.1, 16, 4, 3328), (0.6, 1.2, 16, 4, 3584), (0.61, 1.3, 16, 4, 4096),
        (0.63, 1.4, 16, 4, 4352), (0.64, 1.5, 16, 4, 4608), (0.66, 1.6, 16, 4, 4864),
        (0.67, 1.7, 16, 4, 5120), (0.69, 1.8, 16, 4, 5632), (0.7, 1.9, 16, 4, 5888),
        (0.71, 2.0, 16, 4, 6144), (0.73, 2.1, 16, 4, 6400), (0.74, 2.2, 16, 4, 6656),
        (0.76, 2.3, 20, 5, 7168), (0.77, 2.4, 20, 5, 7424), (0.79, 2.5, 20, 5, 7680),
        (0.8, 2.6, 20, 5, 7936), (0.81, 2.7, 20, 5, 8192), (0.83, 2.8, 20, 5, 8704),
        (0.84, 2.9, 20, 5, 8960), (0.86, 3.0, 20, 5, 9216), (0.87, 3.1, 20, 5, 9472),
        (0.89, 3.2, 20, 5, 9728), (0.9, 3.3, 20, 5, 10240), (0.91, 3.4, 20, 5, 10496),
        (0.93, 3.5, 24, 6, 10752), (0.94, 3.6, 24, 6, 11008), (0.96, 3.7, 24, 6, 11264),
        (0.97, 3.8, 24, 6, 11776), (0.99, 3.9, 24, 6, 12032), (1.0, 4.0, 24, 6, 12288),
    ];

    #[test]
    fn layers_of_270m_match_apples_config() {
        assert_layers(Preset::Size270M, &M270);
    }

    #[test]
    fn layers_of_450m_match_apples_config() {
        assert_layers(Preset::Size450M, &M450);
    }

    #[test]
    fn layers_of_1_1b_match_apples_config() {
        assert_layers(Preset::Size1_1B, &B1_1);
    }

    #[test]
    fn layers_of_3b_match_apples_config() {
        assert_layers(Preset::Size3B, &B3);
    }

    #[test]
    fn parameter_counts_match_the_paper() {
        #[rustfmt::skip]
        let expected = [
            // parameters, all layers, smallest and largest layer, KV bytes per token, tensors
            (Preset::Size270M, 271_527_168, 230_565_888, 5_409_408, 23_759_488, 16_128, 130),
            (Preset::Size450M, 457_179_136, 408_025_600, 6_491_264, 34_212_992, 23_296, 162),
            (Preset::Size1_1B, 1_079_891_456, 1_014_353_408, 11_538_560, 60_821_632, 43_264, 226),
            (Preset::Size3B, 3_036_647_424, 2_938_340_352, 25_958_656, 136_845_568, 83_968, 290),
        ];
        for (preset, parameters, all_layers, smallest, largest, kv_bytes, tensors) in expected {
            let config = preset.config();
            let layers = layer_parameters(&config);
            assert_eq!(config.parameter_count(), parameters, "{preset}");
            assert_eq!(config.weights_bytes(2), 2 * parameters, "{preset}");
            assert_eq!(layers.iter().sum::<u64>(), all_layers, "{preset}");
            assert_eq!(layers.first(), Some(&smallest), "{preset}");
            assert_eq!(layers.iter().min(), Some(&smallest), "{preset}");
            assert_eq!(layers.iter().max(), Some(&largest), "{preset}");
            assert_eq!(config.kv_bytes_per_token(2), kv_bytes, "{preset}");
            assert_eq!(config.tensors().len(), tensors, "{preset}");
        }
    }

    #[test]
    fn layer_sums_match_the_reference() {
        for (preset, q_heads, kv_heads, ffn_dim) in [
            (Preset::Size270M, 252, 63, 46_592),
            (Preset::Size450M, 364, 91, 69_120),
            (Preset::Size1_1B, 676, 169, 129_024),
            (Preset::Size3B, 656, 164, 248_832),
        ] {
            let config = preset.config();
            let sum = |of: fn(&Layer) -> usize| config.layers().iter().map(of).sum::<usize>();
            assert_eq!(sum(|layer| layer.q_heads), q_heads, "{preset}");
            assert_eq!(sum(|layer| layer.kv_heads), kv_heads, "{preset}");
            assert_eq!(sum(|layer| layer.ffn_dim), ffn_dim, "{preset}");
        }
    }

    #[test]
    fn corenets_padded_vocabulary_adds_128_rows() {
        for (preset, parameters) in [
            (Preset::Size270M, 271_691_008),
            (Preset::Size450M, 457_375_744),
            (Preset::Size1_1B, 1_080_153_600),
            (Preset::Size3B, 3_037_040_640),
        ] {
            let settings = LayerWiseConfig {
                vocab_size: 32_128,
                ..preset.settings()
            };
            assert_eq!(
                Config::layer_wise(settings).unwrap().parameter_count(),
                parameters
            );
        }
    }

    #[test]
    fn presets_pass_the_checks_of_custom_models() {
        for preset in Preset::ALL {
            assert_eq!(
                Config::layer_wise(preset.settings()).unwrap(),
                preset.config()
            );
        }
    }

    #[test]
    fn parses_all_preset_names() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse::<Preset>().unwrap(), preset);
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
        for (text, preset) in [
            ("270M", Preset::Size270M),
            ("450m", Preset::Size450M),
            ("1_1B", Preset::Size1_1B),
            ("1.1b", Preset::Size1_1B),
            (" 3B\n", Preset::Size3B),
            ("OpenELM-270M", Preset::Size270M),
            ("apple/OpenELM-270M-Instruct", Preset::Size270M),
            ("APPLE/OPENELM-1_1B-INSTRUCT", Preset::Size1_1B),
            ("openelm_450m", Preset::Size450M),
        ] {
            assert_eq!(text.parse::<Preset>().unwrap(), preset, "{text}");
        }
    }

    #[test]
    fn rejects_other_names() {
        for text in [
            "",
            "/",
            "openelm",
            "270",
            "7B",
            "OpenELM-",
            "apple/",
            "270M-chat",
            "①",
        ] {
            assert!(
                matches!(
                    text.parse::<Preset>(),
                    Err(Error::Option {
                        option: "preset",
                        ..
                    })
                ),
                "{text}"
            );
        }
        assert_eq!(
            "7B".parse::<Preset>().unwrap_err().to_string(),
            "preset: expected 270M, 450M, 1_1B or 3B, found \"7B\"",
        );
    }
}
