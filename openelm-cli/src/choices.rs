//! Named option values, on the command line and in TOML files.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use openelm_core::{
    adapter::AdapterKind,
    chat::ChatTemplate,
    convert::{FileType, Recipe},
    corpus::{Assembly, FileFormat},
    dataset::LongRows,
    generation::LogprobsOf,
    quantization::QuantizationMode,
    quantize::Method,
    train::{OptimizerKind, PreferenceLoss, ScheduleShape},
};
use serde::{Deserialize, Deserializer, de};

/// Declares an enum with the lower-case names of a core enum's variants.
macro_rules! choices {
    ($name:ident of $core:ty: $($(#[$attribute:meta])* $variant:ident),+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        #[value(rename_all = "lower")]
        pub(crate) enum $name {
            $($(#[$attribute])* $variant),+
        }

        impl From<$name> for $core {
            fn from(choice: $name) -> Self {
                match choice {
                    $($name::$variant => Self::$variant),+
                }
            }
        }

        impl From<$core> for $name {
            fn from(choice: $core) -> Self {
                match choice {
                    $(<$core>::$variant => Self::$variant),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |value| value.get_name()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                named(deserializer)
            }
        }
    };
}

choices!(FineTuneType of AdapterKind: Lora, Dora, Full);
choices!(Optimizer of OptimizerKind: Adam, AdamW, Sgd, Lion, Adafactor);
choices!(
    LrSchedule of ScheduleShape:
    Constant,
    Linear,
    Cosine,
    #[value(name = "corenet")]
    CoreNet
);
choices!(DocumentFormat of FileFormat: Jsonl, Txt, Parquet);
choices!(LongRow of LongRows: Split, Drop);
choices!(LogprobsOfChoice of LogprobsOf: Model, Sampler);
choices!(
    Template of ChatTemplate:
    #[value(name = "openelm-instruct")]
    OpenElmInstruct,
    Instruction,
    Plain
);
choices!(Dpo of PreferenceLoss: Sigmoid, Hinge);
choices!(QuantizeMethod of Method: Round, Gptq, Awq, Dwq);
choices!(QuantMode of QuantizationMode: Affine, Mxfp4, Mxfp8, Nvfp4);
choices!(
    QuantRecipe of Recipe:
    #[value(name = "mixed_2_6")]
    Mixed2_6,
    #[value(name = "mixed_3_4")]
    Mixed3_4,
    #[value(name = "mixed_3_6")]
    Mixed3_6,
    #[value(name = "mixed_4_6")]
    Mixed4_6
);
choices!(
    GgufType of FileType:
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0
);
choices!(Packing of Assembly: Pack, Truncate);
choices!(
    Dtype of openelm_core::Dtype:
    #[value(aliases = ["f32", "fp32"])]
    Float32,
    #[value(aliases = ["f16", "fp16"])]
    Float16,
    #[value(alias = "bf16")]
    Bfloat16
);

/// Output format of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Mlx,
    #[value(alias = "huggingface")]
    Hf,
    Gguf,
    #[value(name = "corenet")]
    CoreNet,
    #[value(name = "corenet-mlx")]
    CoreNetMlx,
}

/// Output format of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdapterFormat {
    Mlx,
    Peft,
}

/// Verification level of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    Forward,
    None,
}

/// Deserialises the name of a `T` from a TOML file.
fn named<'de, D: Deserializer<'de>, T: ValueEnum>(deserializer: D) -> Result<T, D::Error> {
    let name = String::deserialize(deserializer)?;
    T::from_str(&name, true).map_err(|_| {
        let values = T::value_variants().iter();
        let names: Vec<String> = values
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        de::Error::custom(format!("expected {}, found '{name}'", names.join(", ")))
    })
}

/// Deserialises a value from its text in a TOML file.
pub(crate) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_the_cores_names() {
        for template in Template::value_variants() {
            assert_eq!(template.to_string(), ChatTemplate::from(*template).name());
        }
    }
}
