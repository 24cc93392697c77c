//! Conversion to and from GGUF.

use std::fs;

use openelm_core::{
    Config, Dtype, Tokenizer,
    config::LayerWiseConfig,
    convert::{self, ConvertOptions, FileType, Format, TokenizerChoice},
    internal::{
        GgufReader, GgufWriter, Token, TokenKind, Vocabulary, metadata, name_from_gguf,
        read_tensor, tensor_plan,
    },
};
use openelm_testing::{TempDir, tales};
use safetensors::Dtype as Stored;

use crate::models::{
    convert, difference, files, logits, logits_of, plain, read, settings, small, talking,
    with_source,
};
use crate::refused::refuses;

fn to(file_type: FileType) -> ConvertOptions {
    ConvertOptions {
        format: Format::Gguf(file_type),
        ..plain()
    }
}

#[test]
fn every_file_type_round_trips() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let exact = logits_of(&small(), &tensors);
    // Bits per weight of a model with matrices only, and the tolerance of its logits.
    for (kind, bits, apart) in [
        (FileType::F32, 32.0, 0.0),
        (FileType::F16, 16.0, 0.02),
        (FileType::Bf16, 16.0, 0.1),
        (FileType::Q8_0, 8.5, 0.2),
        (FileType::Q4_0, 4.5, 3.0),
    ] {
        let file = folder.join(format!("{kind}.gguf"));
        let report = convert(&folder.join("source"), &file, &to(kind)).unwrap();
        assert_eq!(report.format, "gguf");
        assert!(
            (report.bits_per_weight - bits).abs() < 0.6,
            "{kind}: {}",
            report.bits_per_weight
        );
        let checks = report.verification.unwrap().tensors;
        let matrices = tensors
            .values()
            .filter(|tensor| tensor.shape.len() == 2)
            .count();
        let expected = match kind {
            FileType::F32 => (tensors.len(), 0, 0),
            FileType::F16 | FileType::Bf16 => (tensors.len() - matrices, matrices, 0),
            _ => (tensors.len() - matrices, 0, matrices),
        };
        assert_eq!(
            (checks.identical, checks.rounded, checks.quantized),
            expected,
            "{kind}"
        );

        let mut reader = GgufReader::open(&file).unwrap();
        let size: u64 = reader.tensors().values().map(|tensor| tensor.bytes()).sum();
        assert_eq!(report.bytes, size);
        assert_eq!(name_from_gguf(&reader), Some(kind.to_string().as_str()));
        assert_eq!(Vocabulary::from_gguf(&reader).unwrap(), None);
        let back = folder.join(format!("back-{kind}"));
        let report = convert(&file, &back, &plain()).unwrap();
        assert_eq!(report.source_format, "GGUF file");
        assert_eq!(
            report.verification.unwrap().tensors.identical,
            tensors.len()
        );
        assert_eq!(Config::load(&back).unwrap().layers(), small().layers());
        for (name, tensor) in read(&back) {
            let data = read_tensor(&mut reader, &name).unwrap();
            assert_eq!(tensor.bytes, data.bytes, "{kind} {name}");
            let stored = match (kind, tensor.shape.len()) {
                (FileType::F16, 2) => Dtype::Float16,
                (FileType::Bf16, 2) => Dtype::Bfloat16,
                _ => Dtype::Float32,
            };
            let is = match stored {
                Dtype::Float16 => Stored::F16,
                Dtype::Bfloat16 => Stored::BF16,
                Dtype::Float32 => Stored::F32,
            };
            assert_eq!(tensor.dtype, is);
            if !matches!(kind, FileType::Q8_0 | FileType::Q4_0) {
                assert_eq!(tensor, tensors[&name].cast(stored), "{kind} {name}");
            }
        }
        let found = difference(&logits(&back, false), &exact);
        assert!(found <= apart, "{kind}: {found}");
        assert!(found >= apart / 50.0, "{kind}: {found}");

        // Reading and writing the file again changes nothing.
        let again = folder.join(format!("again-{kind}/{kind}.gguf"));
        fs::create_dir(again.parent().unwrap()).unwrap();
        convert(&back, &again, &to(kind)).unwrap();
        let (first, second) = (fs::read(&file).unwrap(), fs::read(&again).unwrap());
        assert!(first == second, "{kind}");
    }
}

#[test]
fn gguf_conversion_writes_one_file() {
    let (folder, _) = with_source(&small(), Dtype::Float16);
    let file = folder.join("small.gguf");
    convert(&folder.join("source"), &file, &to(FileType::Q8_0)).unwrap();
    assert_eq!(folder.names(), ["small.gguf", "source"]);
    let first = fs::read(&file).unwrap();
    let options = ConvertOptions {
        force: true,
        ..to(FileType::F16)
    };
    convert(&folder.join("source"), &file, &options).unwrap();
    assert_eq!(folder.names(), ["small.gguf", "source"]);
    assert!(fs::read(&file).unwrap().len() > first.len());
    // A file replaces no folder, and a folder no file.
    convert(&folder.join("source"), &folder.join("model"), &plain()).unwrap();
    refuses(
        &folder,
        "source",
        "model",
        &options,
        &["model: a folder, expected a GGUF file"],
    );
    let options = ConvertOptions {
        force: true,
        ..plain()
    };
    refuses(
        &folder,
        "source",
        "small.gguf",
        &options,
        &["small.gguf: a file, expected a folder"],
    );
}

#[test]
fn tokenizer_round_trips() {
    let (folder, _) = with_source(&talking(), Dtype::Float16);
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::Path(tales()),
        ..to(FileType::F16)
    };
    let file = folder.join("talking.gguf");
    let report = convert(&folder.join("source"), &file, &options).unwrap();
    assert!(report.verification.unwrap().text);
    let report = convert(&file, &folder.join("back"), &ConvertOptions::default()).unwrap();
    let verification = report.verification.unwrap();
    assert_eq!((verification.text, verification.tokens), (true, 64));
    let before = Tokenizer::find(&tales(), None).unwrap();
    let after = Tokenizer::find(&folder.join("back"), None).unwrap();
    assert_eq!(
        (after.bos_id(), after.eos_id()),
        (before.bos_id(), before.eos_id())
    );
    for text in [
        "Once upon a time there lived a little girl",
        "  two  spaces, and\n\na break",
        "🦙 naïve café № 42</s>",
        "",
    ] {
        let ids = before.encode_prompt(text).unwrap();
        assert_eq!(after.encode_prompt(text).unwrap(), ids);
        assert_eq!(after.decode(&ids).unwrap(), before.decode(&ids).unwrap());
    }
    let written = files(&folder.join("back"));
    assert!(written.contains_key("tokenizer_config.json"));

    // A given tokenizer has priority; `no_tokenizer` removes it.
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::Path(tales().join("tokenizer.json")),
        ..ConvertOptions::default()
    };
    convert(&file, &folder.join("own"), &options).unwrap();
    let own = fs::read(folder.join("own/tokenizer.json")).unwrap();
    assert_eq!(own, fs::read(tales().join("tokenizer.json")).unwrap());
    let report = convert(&file, &folder.join("without"), &plain()).unwrap();
    assert!(!report.verification.unwrap().text);
    assert!(!folder.join("without/tokenizer.json").exists());
}

#[test]
fn converts_vocabularies_without_bytes() {
    let (folder, config) = (TempDir::new(), small());
    let token = |text: &str, kind| Token {
        text: text.into(),
        score: 0.0,
        kind,
    };
    // A vocabulary without byte tokens.
    let vocabulary = Vocabulary {
        tokens: vec![
            token("<unk>", TokenKind::Unknown),
            token("<s>", TokenKind::Control),
            token("</s>", TokenKind::Control),
            token("\u{2581}a", TokenKind::Normal),
        ],
        bos_id: 1,
        eos_id: 2,
        unk_id: Some(0),
        adds_space: true,
        merges: None,
    };
    let file = folder.join("odd.gguf");
    let entries = metadata(&config, "odd", FileType::F32, Some(&vocabulary)).unwrap();
    let plan = tensor_plan(&config, FileType::F32).unwrap();
    let specs = plan.iter().map(|planned| planned.tensor.clone()).collect();
    let mut writer = GgufWriter::new(Vec::new(), "odd.gguf", &entries, specs).unwrap();
    for planned in &plan {
        let values = vec![0.5; planned.tensor.shape.iter().product()];
        writer.write(&planned.tensor.name, &values).unwrap();
    }
    fs::write(&file, writer.finish().unwrap()).unwrap();
    let report = convert(&file, &folder.join("back"), &ConvertOptions::default()).unwrap();
    let verification = report.verification.unwrap();
    assert_eq!((verification.text, verification.tokens), (true, 2));
    let tokenizer = Tokenizer::find(&folder.join("back"), None).unwrap();
    assert_eq!(tokenizer.encode_prompt("a").unwrap(), [1, 0]);
}

#[test]
fn rejects_untied_head() {
    let config = Config::layer_wise(LayerWiseConfig {
        share_input_output_layers: false,
        ..settings()
    })
    .unwrap();
    let (folder, _) = with_source(&config, Dtype::Float16);
    let options = to(FileType::F16);
    let message = convert::plan(folder.join("source"), &options)
        .unwrap_err()
        .to_string();
    assert!(message.contains("share_input_output_layers"), "{message}");
    let failed = convert(&folder.join("source"), &folder.join("head.gguf"), &options);
    assert_eq!(failed.unwrap_err().to_string(), message);
    assert_eq!(folder.names(), ["source"]);
}

#[test]
fn a_vocabulary_in_a_file_is_refused_with_the_path_of_the_file() {
    let folder = TempDir::new();
    let file = folder.join("tales.gguf");
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::OfSource,
        verify: false,
        ..to(FileType::F16)
    };
    convert(&tales(), &file, &options).unwrap();
    // The token `q` becomes a second `z`.
    let mut bytes = fs::read(&file).unwrap();
    let token = [&1_u64.to_le_bytes()[..], b"q"].concat();
    let at = bytes.windows(9).position(|found| found == token).unwrap();
    bytes[at + 8] = b'z';
    fs::write(&file, bytes).unwrap();
    let options = ConvertOptions {
        format: Format::Mlx,
        ..options
    };
    let error = convert(&file, &folder.join("model"), &options).unwrap_err();
    assert_eq!(error.path(), Some(&*file), "{error}");
    assert!(error.to_string().contains("two tokens are `z`"), "{error}");
}
