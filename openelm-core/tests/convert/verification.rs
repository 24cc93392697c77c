//! What is damaged on its way to the disk does not take the target's place.

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
use safetensors::SafeTensors;

use crate::models::{Folder, convert, plain, read, small};

const NAME: &str = "transformer.layers.1.ffn.proj_2.weight";

/// Flips the highest bit of a byte's exponent, or sign.
fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x80]).unwrap();
}

/// Converts with `damage` done to what was written, before it is compared with the source.
fn damaged(folder: &Folder, target: &str, options: &ConvertOptions, damage: impl Fn()) -> Error {
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

/// Where the last byte of the tensor's number 77 is.
fn place(path: &Path, name: &str) -> u64 {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data();
    let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
    (start + 77 * data.len() / (128 * 256) + data.len() / (128 * 256) - 1) as u64
}

#[test]
fn a_flipped_bit_is_found_and_nothing_is_kept() {
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
        let name = format!(
            "flipped-{}",
            dtype.map_or("none".into(), |dtype| dtype.to_string())
        );
        let (folder, tensors) = Folder::with_source(&name, &small(), Dtype::Float32);
        let bound = if tensors[NAME].values()[77] < 0.0 {
            bound.to_owned()
        } else {
            bound.replace('-', "")
        };
        let options = ConvertOptions { dtype, ..plain() };
        let written = folder.join(".target.partial/model.safetensors");
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
        // Undamaged it is kept.
        convert(&folder.join("source"), &folder.join("target"), &options).unwrap();
    }
}

#[test]
fn a_target_outlives_a_damaged_successor() {
    let (folder, tensors) = Folder::with_source("successor", &small(), Dtype::Float32);
    convert(&folder.join("source"), &folder.join("target"), &plain()).unwrap();
    let options = ConvertOptions {
        force: true,
        ..plain()
    };
    let written = folder.join(".target.partial/model.safetensors");
    let error = damaged(&folder, "target", &options, || {
        flip(&written, place(&written, NAME))
    });
    assert!(matches!(error, Error::Verification { .. }), "{error}");
    assert_eq!(folder.names(), ["source", "target"]);
    assert_eq!(read(&folder.join("target")), tensors);
}

#[test]
fn damage_in_a_gguf_file_is_found() {
    let (folder, _) = Folder::with_source("flipped-gguf", &small(), Dtype::Float32);
    let written = folder.join(".small.gguf.partial/small.gguf");
    for kind in [FileType::F32, FileType::F16, FileType::Bf16] {
        let options = ConvertOptions {
            format: Format::Gguf(kind),
            ..plain()
        };
        // The last number of the last tensor but padding.
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
fn a_file_that_is_cut_or_gone_is_told() {
    let (folder, _) = Folder::with_source("cut", &small(), Dtype::Float32);
    let written = folder.join(".target.partial/model.safetensors");
    let error = damaged(&folder, "target", &plain(), || {
        let file = File::options().write(true).open(&written).unwrap();
        file.set_len(20_000).unwrap();
    });
    let message = error.to_string();
    let cut = folder.join("target/model.safetensors");
    let cut = cut.display();
    assert!(message.contains(&format!("{cut}: ")), "{message}");
    assert!(
        !message.contains('\n') && !message.contains(".partial"),
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
fn unverified_results_are_kept_as_they_are() {
    let (folder, tensors) = Folder::with_source("unverified", &small(), Dtype::Float32);
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
fn a_flipped_bit_of_a_packed_matrix_is_found() {
    let stem = NAME.trim_end_matches(".weight");
    let (folder, _) = Folder::with_source("flipped-packed", &small(), Dtype::Float32);
    let written = folder.join(".target.partial/model.safetensors");
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
    let written = folder.join(".small.gguf.partial/small.gguf");
    for kind in [FileType::Q8_0, FileType::Q4_0] {
        let options = ConvertOptions {
            format: Format::Gguf(kind),
            ..plain()
        };
        let error = damaged(&folder, "small.gguf", &options, || {
            let reader = GgufReader::open(&written).unwrap();
            let length = fs::metadata(&written).unwrap().len();
            // The last matrix is followed by the final norm, 128 numbers.
            assert_eq!(reader.tensors()["output_norm.weight"].bytes(), 512);
            flip(&written, length - 512 - 3);
        });
        let message = error.to_string();
        let expected = "once packed, found";
        assert!(message.contains(expected), "{kind}: {message}");
    }
}
