//! Results damaged while writing do not replace the target.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use openelm_core::{
    CancelHandle, Dtype, Error,
    convert::{self, ConvertEvent, ConvertOptions, FileType, Format, Quantize},
    internal::GgufReader,
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::TempDir;
use safetensors::SafeTensors;

use crate::models::{convert, plain, read, small, with_source};

const NAME: &str = "transformer.layers.1.ffn.proj_2.weight";

/// Flips the highest exponent bit, or the sign, of a number.
fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x80]).unwrap();
}

/// Converts, and applies `damage` to the written files before they are verified.
fn damaged(folder: &TempDir, target: &str, options: &ConvertOptions, damage: impl Fn()) -> Error {
    let cancel = CancelHandle::default();
    let target = folder.join(target);
    let mut done = false;
    let progress = |event: ConvertEvent<'_>| {
        if !done && matches!(event, ConvertEvent::Verifying { done: 0, .. }) {
            damage();
            done = true;
        }
    };
    convert::convert(folder.join("source"), target, options, &cancel, progress).unwrap_err()
}

/// Offset of the last byte of the tensor's element 77.
fn place(path: &Path, name: &str) -> u64 {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data();
    let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
    (start + 77 * data.len() / (128 * 256) + data.len() / (128 * 256) - 1) as u64
}

#[test]
fn flipped_bit_fails_verification() {
    for (dtype, bound) in [
        (None, "expected -"),
        (
            Some(Dtype::Float16),
            "expected, to one rounding to float16, -",
        ),
        (
            Some(Dtype::Bfloat16),
            "expected, to one rounding to bfloat16, -",
        ),
    ] {
        let (folder, tensors) = with_source(&small(), Dtype::Float32);
        let bound = if tensors[NAME].values()[77] < 0.0 {
            bound.to_owned()
        } else {
            bound.replace('-', "")
        };
        let options = ConvertOptions { dtype, ..plain() };
        let written = folder.join(".target.openelm-partial/model/model.safetensors");
        let error = damaged(&folder, "target", &options, || {
            flip(&written, place(&written, NAME))
        });
        let Error::Verification { path, problem } = &error else {
            panic!("{error}")
        };
        assert_eq!(path, &folder.join("target"));
        assert!(problem.contains(&format!("`{NAME}`: {bound}")), "{problem}");
        assert!(error.to_string().ends_with("; nothing was kept"), "{error}");
        assert_eq!(folder.names(), ["source"]);
        // The undamaged result is kept.
        convert(&folder.join("source"), &folder.join("target"), &options).unwrap();
    }
}

#[test]
fn failed_verification_keeps_the_old_target() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    convert(&folder.join("source"), &folder.join("target"), &plain()).unwrap();
    let options = ConvertOptions {
        force: true,
        ..plain()
    };
    let written = folder.join(".target.openelm-partial/model/model.safetensors");
    let error = damaged(&folder, "target", &options, || {
        flip(&written, place(&written, NAME))
    });
    assert!(matches!(error, Error::Verification { .. }), "{error}");
    assert_eq!(folder.names(), ["source", "target"]);
    assert_eq!(read(&folder.join("target")), tensors);
}

#[test]
fn damaged_gguf_file_fails_verification() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let written = folder.join(".small.gguf.openelm-partial/model.gguf");
    for kind in [FileType::F32, FileType::F16, FileType::Bf16] {
        let options = ConvertOptions {
            format: Format::Gguf(kind),
            ..plain()
        };
        // The last element of the last tensor before the padding.
        let error = damaged(&folder, "small.gguf", &options, || {
            flip(&written, fs::metadata(&written).unwrap().len() - 1);
        });
        let message = error.to_string();
        assert!(matches!(error, Error::Verification { .. }), "{message}");
        assert!(
            message.contains("small.gguf: verification failed: tensor `transformer."),
            "{message}"
        );
        assert_eq!(folder.names(), ["source"]);
    }
}

#[test]
fn truncated_or_missing_file_fails_verification() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let written = folder.join(".target.openelm-partial/model/model.safetensors");
    let error = damaged(&folder, "target", &plain(), || {
        let file = File::options().write(true).open(&written).unwrap();
        file.set_len(20_000).unwrap();
    });
    let message = error.to_string();
    let cut = folder.join("target/model.safetensors");
    let cut = cut.display();
    assert!(message.contains(&format!("{cut}: ")), "{message}");
    assert!(
        !message.contains('\n') && !message.contains("partial"),
        "{message}"
    );
    assert_eq!(folder.names(), ["source"]);

    let message = damaged(&folder, "target", &plain(), || {
        fs::remove_file(&written).unwrap();
    })
    .to_string();
    assert_eq!(
        message,
        format!("{cut}: not found; {cut}.index.json lists it")
    );
    assert_eq!(folder.names(), ["source"]);
}

#[test]
fn unverified_results_are_kept() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let options = ConvertOptions {
        verify: false,
        ..plain()
    };
    let mut verified = false;
    let report = convert::convert(
        folder.join("source"),
        folder.join("target"),
        &options,
        &CancelHandle::default(),
        |event| verified |= matches!(event, ConvertEvent::Verifying { .. }),
    )
    .unwrap();
    assert_eq!((verified, report.verification), (false, None));
    assert_eq!(read(&folder.join("target")), tensors);
    let report = fs::read(folder.join("target/convert-report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(report["verification"].is_null());
}

#[test]
fn flipped_bit_of_quantized_matrix_fails_verification() {
    let stem = NAME.trim_end_matches(".weight");
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let written = folder.join(".target.openelm-partial/model/model.safetensors");
    for mode in QuantizationMode::ALL {
        let quantization = Quantization::new(mode, None, None).unwrap();
        let options = ConvertOptions {
            quantize: Some(Quantize::uniform(quantization)),
            ..plain()
        };
        for part in ["weight", "scales"] {
            let error = damaged(&folder, "target", &options, || {
                let bytes = fs::read(&written).unwrap();
                let file = SafeTensors::deserialize(&bytes).unwrap();
                let data = file.tensor(&format!("{stem}.{part}")).unwrap().data();
                let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
                flip(&written, (start + 35) as u64);
            });
            let message = error.to_string();
            assert!(
                matches!(error, Error::Verification { .. }),
                "{mode:?}: {message}"
            );
            let expected = format!("tensor `{NAME}`: expected ");
            assert!(message.contains(&expected), "{mode:?} {part}: {message}");
            assert_eq!(folder.names(), ["source"]);
        }
    }
    let written = folder.join(".small.gguf.openelm-partial/model.gguf");
    for kind in [FileType::Q8_0, FileType::Q4_0] {
        let options = ConvertOptions {
            format: Format::Gguf(kind),
            ..plain()
        };
        let error = damaged(&folder, "small.gguf", &options, || {
            let reader = GgufReader::open(&written).unwrap();
            let length = fs::metadata(&written).unwrap().len();
            // The final norm, 128 elements, follows the last matrix.
            assert_eq!(reader.tensors()["output_norm.weight"].bytes(), 512);
            flip(&written, length - 512 - 3);
        });
        let message = error.to_string();
        let expected = "after quantisation, found";
        assert!(message.contains(expected), "{kind}: {message}");
    }
}
