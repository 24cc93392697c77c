//! Invalid conversions: a one-line error with the cause, and no files left.

use std::fs;

use openelm_core::{
    CancelHandle, Config, Dtype, Error,
    config::LayerWiseConfig,
    convert::{
        self, ConvertEvent, ConvertOptions, FileType, Format, LayerRule, Quantize, Recipe,
        TokenizerChoice,
    },
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::{TempDir, tales};
use serde_json::json;

use crate::models::{
    convert, files, plain, read, settings, small, talking, with_source, write_model,
};

/// Checks that converting `source` to `target`, both in `folder`, fails before any file is written.
#[track_caller]
pub(crate) fn refuses(
    folder: &TempDir,
    source: &str,
    target: &str,
    options: &ConvertOptions,
    parts: &[&str],
) {
    let before = files(folder);
    let cancel = CancelHandle::default();
    let mut written = false;
    let result = convert::convert(
        folder.join(source),
        folder.join(target),
        options,
        &cancel,
        |event| {
            written |= matches!(event, ConvertEvent::Written { .. });
        },
    );
    let message = match result {
        Err(Error::Cancelled) | Ok(_) => panic!("{result:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!message.contains('\n') && message.len() < 600, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} | {message}");
    }
    assert!(!written, "{message}");
    assert!(files(folder) == before, "{message}: {:?}", folder.names());
}

pub(crate) fn quantize(
    mode: QuantizationMode,
    bits: Option<usize>,
    group: Option<usize>,
) -> ConvertOptions {
    let quantization = Quantization::new(mode, bits, group).unwrap();
    ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    }
}

#[test]
fn rejects_contradicting_options() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let four = quantize(QuantizationMode::Affine, None, None);
    let gguf = Format::Gguf(FileType::F16);
    let case = |options: ConvertOptions, parts: &[&str]| {
        refuses(&folder, "source", "target", &options, parts)
    };
    case(
        ConvertOptions {
            dequantize: true,
            ..four.clone()
        },
        &["dequantize: cannot be combined with quantize"],
    );
    case(
        ConvertOptions {
            format: Format::HuggingFace,
            ..four.clone()
        },
        &["quantize: ", "write mlx"],
    );
    case(
        ConvertOptions {
            format: gguf,
            ..four.clone()
        },
        &["quantize: ", "GGUF type"],
    );
    case(
        ConvertOptions {
            format: gguf,
            dtype: Some(Dtype::Float16),
            ..plain()
        },
        &["dtype: ", "GGUF type"],
    );
    case(
        ConvertOptions {
            max_shard_bytes: 0,
            ..plain()
        },
        &["max_shard_bytes: "],
    );
    for mode in [QuantizationMode::Mxfp4, QuantizationMode::Nvfp4] {
        let mut options = quantize(mode, None, None);
        if let Some(quantize) = &mut options.quantize {
            quantize.recipe = Some(Recipe::Mixed2_6);
        }
        case(options, &["mode: ", "affine"]);
    }
    for bits in ["1", "7", "16", "0"] {
        let mut options = four.clone();
        if let Some(quantize) = &mut options.quantize {
            quantize.layers = vec![format!("ffn={bits}").parse::<LayerRule>().unwrap()];
        }
        case(
            options,
            &[
                "layer: bits of ffn: affine takes one of [2, 3, 4, 5, 6, 8], found ",
                bits,
            ],
        );
    }
    let message = convert::parse_architecture("70B").unwrap_err().to_string();
    assert!(
        message.contains("architecture: ") && message.contains("\"70B\""),
        "{message}"
    );
}

#[test]
fn rejects_group_sizes_that_divide_no_row() {
    let narrow = Config::layer_wise(LayerWiseConfig {
        model_dim: 48,
        head_dim: 16,
        ffn_dim_divisor: 8,
        ..settings()
    })
    .unwrap();
    let (folder, _) = with_source(&narrow, Dtype::Float32);
    let options = quantize(QuantizationMode::Affine, None, Some(128));
    refuses(
        &folder,
        "source",
        "target",
        &options,
        &["group", "groups of 128"],
    );
    let message = convert::plan(folder.join("source"), &options).unwrap_err();
    assert!(matches!(message, Error::Option { .. }), "{message}");
}

#[test]
fn rejects_missing_or_mismatched_tokenizers() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let with = |tokenizer| ConvertOptions {
        tokenizer,
        ..plain()
    };
    let case =
        |tokenizer, parts: &[&str]| refuses(&folder, "source", "target", &with(tokenizer), parts);
    let source = folder.join("source");
    case(
        TokenizerChoice::OfSource,
        &[
            source.to_str().unwrap(),
            "no tokenizer.json",
            "meta-llama/Llama-2-7b-hf",
        ],
    );
    let nowhere = folder.join("nowhere");
    case(
        TokenizerChoice::Path(nowhere.clone()),
        &[nowhere.to_str().unwrap()],
    );
    case(
        TokenizerChoice::Path(tales()),
        &["tokenizer.json", "2048 ids", "vocabulary has 96"],
    );
    fs::write(folder.join("broken.json"), "{\"model\": {}").unwrap();
    case(
        TokenizerChoice::Path(folder.join("broken.json")),
        &["broken.json"],
    );
    fs::copy(
        tales().join("tokenizer.json"),
        source.join("tokenizer.json"),
    )
    .unwrap();
    case(
        TokenizerChoice::OfSource,
        &["2048 ids", "vocabulary has 96"],
    );
    let gguf = ConvertOptions {
        format: Format::Gguf(FileType::F16),
        ..with(TokenizerChoice::OfSource)
    };
    refuses(&folder, "source", "target.gguf", &gguf, &["2048 ids"]);
    let words = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "the": 3}}});
    fs::write(source.join("tokenizer.json"), words.to_string()).unwrap();
    let parts = ["tokenizer.json", "cannot be written to GGUF"];
    refuses(&folder, "source", "target.gguf", &gguf, &parts);
    let copied = with(TokenizerChoice::OfSource);
    convert(&source, &folder.join("words"), &copied).unwrap();
    let settings = fs::read_to_string(folder.join("words/tokenizer_config.json")).unwrap();
    assert!(settings.contains("PreTrainedTokenizerFast"), "{settings}");
}

#[test]
fn rejects_existing_targets() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let fresh = &plain();
    let forced = &ConvertOptions {
        force: true,
        ..plain()
    };
    let case = |target, options, parts: &[&str]| refuses(&folder, "source", target, options, parts);
    fs::create_dir(folder.join("photos")).unwrap();
    fs::write(folder.join("photos/1.jpg"), "x").unwrap();
    fs::write(folder.join("letter"), "x").unwrap();
    for options in [fresh, forced] {
        case(
            "photos",
            options,
            &["photos: a folder that contains other files than a model"],
        );
        case("letter", options, &["letter: a file, expected a folder"]);
    }
    case("source", fresh, &["source", "the same"]);
    case("source", forced, &["source", "the same"]);
    case("source/", forced, &["source", "the same"]);
    case("photos/../source", forced, &["source", "the same"]);
    case(
        "source/model",
        forced,
        &["source/model", "is inside the other"],
    );
    case("", forced, &["is inside the other"]);
    case("letter/target", fresh, &["letter: not a folder"]);
    case("..", forced, &["ends in a name"]);
    refuses(
        &folder,
        "nowhere",
        "target",
        fresh,
        &["nowhere", "no such file or folder"],
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("source", folder.join("link")).unwrap();
        let message = convert(&folder.join("source"), &folder.join("link"), forced);
        assert!(message.unwrap_err().to_string().contains("the same"));
        fs::remove_file(folder.join("link")).unwrap();
    }
    // With `force`, an empty folder counts as a missing one.
    fs::create_dir(folder.join("empty")).unwrap();
    case("empty", fresh, &["empty: exists"]);
    convert(&folder.join("source"), &folder.join("empty"), forced).unwrap();
    case(
        "empty",
        fresh,
        &["empty: exists, and replacing it was not requested"],
    );
    // Missing folders are created.
    convert(
        &folder.join("source"),
        &folder.join("no/such/target"),
        fresh,
    )
    .unwrap();
}

#[test]
fn rejects_targets_that_contain_an_input() {
    let (folder, _) = with_source(&talking(), Dtype::Float32);
    fs::create_dir_all(folder.join("target/tokenizer")).unwrap();
    let tokenizer = folder.join("target/tokenizer/tokenizer.json");
    fs::copy(tales().join("tokenizer.json"), &tokenizer).unwrap();
    let config = r#"{"model_type": "openelm"}"#;
    fs::write(folder.join("target/config.json"), config).unwrap();
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::Path(tokenizer),
        force: true,
        ..plain()
    };
    let parts = [
        "target: contains an input",
        "(tokenizer ",
        "tokenizer.json)",
    ];
    refuses(&folder, "source", "target", &options, &parts);
    refuses(&folder, "source", "target/x/..", &options, &parts[1..]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("target", folder.join("link")).unwrap();
        refuses(&folder, "source", "link", &options, &parts[1..]);
    }
    convert(
        &folder.join("source"),
        &folder.join("target/tokenizer/new"),
        &options,
    )
    .unwrap();
}

#[test]
fn rejects_values_that_overflow_the_dtype() {
    let (folder, mut tensors) = with_source(&small(), Dtype::Float32);
    let name = "transformer.layers.1.attn.out_proj.weight";
    let large = tensors.get_mut(name).unwrap();
    large.bytes[400..404].copy_from_slice(&1e5_f32.to_le_bytes());
    write_model(&folder.join("source"), &small(), &tensors);
    let half = ConvertOptions {
        dtype: Some(Dtype::Float16),
        ..plain()
    };
    let error = convert(&folder.join("source"), &folder.join("target"), &half).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Verification { .. }), "{message}");
    let expected = format!("tensor `{name}`: expected, to one rounding to float16, 1e5, found inf");
    assert!(
        message.contains("target: verification failed: "),
        "{message}"
    );
    assert!(message.contains(&expected), "{message}");
    assert_eq!(folder.names(), ["source"]);
    let gguf = ConvertOptions {
        format: Format::Gguf(FileType::F16),
        ..plain()
    };
    let error = convert(&folder.join("source"), &folder.join("target.gguf"), &gguf).unwrap_err();
    let expected = "target.gguf: tensor `blk.1.attn_output.weight`: 100000 is beyond the range of";
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(folder.names(), ["source"]);
    // Bfloat16 has the range of float32.
    let brain = ConvertOptions {
        dtype: Some(Dtype::Bfloat16),
        ..plain()
    };
    convert(&folder.join("source"), &folder.join("target"), &brain).unwrap();
    // Infinity in the source is an error, too.
    let large = tensors.get_mut(name).unwrap();
    large.bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    write_model(&folder.join("source"), &small(), &tensors);
    let failed = convert(&folder.join("source"), &folder.join("nan"), &plain()).unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("predictions are not finite: layer 1 computes"),
        "{failed}"
    );
    let unverified = ConvertOptions {
        verify: false,
        ..plain()
    };
    convert(&folder.join("source"), &folder.join("nan"), &unverified).unwrap();
    assert_eq!(read(&folder.join("nan")), tensors);
}
