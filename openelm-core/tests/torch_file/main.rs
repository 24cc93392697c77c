//! `torch.save` files are read exactly, without PyTorch. Any other file gives a one-line error; it
//! never causes a panic, unbounded memory use or code execution.
//!
//! The files in fixtures/torch come from parity/torch_writer.py, which compared them with PyTorch;
//! pytorch_*.pt are written by PyTorch 1.13. Hostile files are assembled here, opcode by opcode.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

mod opcodes;
mod pickles;
mod tensors;
mod zip;

use openelm_core::{Dtype, Error, Result, internal::TorchFile};
use openelm_testing::TempFile;

use opcodes::{LEGACY_HEAD, long, rebuilt, storage, text};

const FIXTURES: [&str; 7] = [
    "weights.pt",
    "weights_protocol4.pt",
    "weights_legacy.pt",
    "training.pt",
    "training_legacy.pt",
    "pytorch_zip.pt",
    "pytorch_legacy.pt",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/torch")
        .join(name)
}

/// Opens a file of these bytes and reads all of its tensors.
fn read_all(bytes: &[u8]) -> Result<()> {
    let scratch = TempFile::in_memory("weights.pt", bytes);
    let file = TorchFile::open(&scratch)?;
    for (name, tensor) in file.tensors() {
        let values = file.read(name)?;
        assert_eq!(values.len(), tensor.bytes());
        assert!(
            values.len() <= bytes.len(),
            "{name} is longer than its file"
        );
    }
    Ok(())
}

/// The error message of a file of these bytes.
fn refusal(bytes: &[u8]) -> String {
    match read_all(bytes) {
        Err(error @ (Error::Checkpoint { .. } | Error::TensorDtype { .. })) => {
            let message = error.to_string();
            assert!(
                message.len() < 1000 && !message.contains('\n'),
                "{message:?}"
            );
            message
        }
        other => panic!("{other:?}"),
    }
}

fn assert_refused(bytes: &[u8], because: &str) {
    let message = refusal(bytes);
    assert!(message.contains(because), "{message:?} lacks {because:?}");
}

fn values(file: &TorchFile, name: &str) -> Vec<f32> {
    let bytes = file.read(name).unwrap();
    match file.tensors()[name].dtype {
        Dtype::Float32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect(),
        Dtype::Float16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&value| half::f16::from_le_bytes(value).to_f32())
            .collect(),
        Dtype::Bfloat16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&value| half::bf16::from_le_bytes(value).to_f32())
            .collect(),
    }
}

fn assert_tensors(file: &TorchFile, expected: &[(&str, Dtype, &[usize], &[f32])]) {
    let names: Vec<&str> = file.tensors().keys().map(String::as_str).collect();
    let mut expected_names: Vec<&str> = expected.iter().map(|tensor| tensor.0).collect();
    expected_names.sort_unstable();
    assert_eq!(names, expected_names);
    for &(name, dtype, shape, expected) in expected {
        let tensor = &file.tensors()[name];
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (dtype, shape));
        assert_eq!(values(file, name), expected, "{name}");
    }
}

#[test]
fn reads_state_dicts_in_both_formats() {
    for name in ["weights.pt", "weights_protocol4.pt", "weights_legacy.pt"] {
        let file = TorchFile::open(fixture(name)).unwrap();
        assert_eq!(file.path(), fixture(name));
        assert_tensors(
            &file,
            &[
                (
                    "token_embeddings.weight",
                    Dtype::Float16,
                    &[3, 2],
                    &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
                ),
                (
                    "classifier.weight",
                    Dtype::Float16,
                    &[3, 2],
                    &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
                ),
                (
                    "layers.0.q.weight",
                    Dtype::Float32,
                    &[2, 3],
                    &[100.0, 100.5, 101.0, 101.5, 102.0, 102.5],
                ),
                (
                    "layers.0.k.weight",
                    Dtype::Float32,
                    &[2, 3],
                    &[103.0, 103.5, 104.0, 104.5, 105.0, 105.5],
                ),
                (
                    "layers.0.transposed",
                    Dtype::Float32,
                    &[3, 2],
                    &[0.0, 1.5, 0.5, 2.0, 1.0, 2.5],
                ),
                (
                    "layers.0.columns",
                    Dtype::Bfloat16,
                    &[3, 2],
                    &[0.5, 1.0, 2.5, 3.0, 4.5, 5.0],
                ),
                (
                    "layers.0.every_other",
                    Dtype::Bfloat16,
                    &[4],
                    &[0.0, 1.0, 2.0, 3.0],
                ),
                (
                    "norm.weight",
                    Dtype::Bfloat16,
                    &[4],
                    &[-1.0, -0.5, 0.0, 0.5],
                ),
                ("scale", Dtype::Float32, &[], &[3.0]),
                ("nothing", Dtype::Float32, &[0, 3], &[]),
            ],
        );
    }
}

#[test]
fn training_checkpoints_give_model_or_average() {
    for name in ["training.pt", "training_legacy.pt"] {
        assert_tensors(
            &TorchFile::open(fixture(name)).unwrap(),
            &[
                ("norm.weight", Dtype::Float32, &[4], &[0.0, 0.5, 1.0, 1.5]),
                (
                    "layers.0.weight",
                    Dtype::Float32,
                    &[2, 3],
                    &[10.0, 10.5, 11.0, 11.5, 12.0, 12.5],
                ),
            ],
        );
        assert_tensors(
            &TorchFile::open_with(fixture(name), true).unwrap(),
            &[
                (
                    "norm.weight",
                    Dtype::Float32,
                    &[4],
                    &[20.0, 20.5, 21.0, 21.5],
                ),
                (
                    "layers.0.weight",
                    Dtype::Float32,
                    &[2, 3],
                    &[30.0, 30.5, 31.0, 31.5, 32.0, 32.5],
                ),
            ],
        );
    }
    let error = TorchFile::open_with(fixture("weights.pt"), true).unwrap_err();
    assert!(error.to_string().contains("ema_state_dict"), "{error}");
}

#[test]
fn reads_files_of_pytorch() {
    for name in ["pytorch_zip.pt", "pytorch_legacy.pt"] {
        assert_tensors(
            &TorchFile::open(fixture(name)).unwrap(),
            &[
                ("norm", Dtype::Float32, &[2], &[1.5, -2.0]),
                (
                    "proj.weight",
                    Dtype::Float32,
                    &[2, 3],
                    &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
                ),
            ],
        );
        let counted: Vec<f32> = (0_u8..12).map(f32::from).collect();
        assert_tensors(
            &TorchFile::open_with(fixture(name), true).unwrap(),
            &[
                (
                    "transposed",
                    Dtype::Float32,
                    &[4, 3],
                    &[0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.],
                ),
                (
                    "columns",
                    Dtype::Float32,
                    &[3, 2],
                    &[1.0, 2.0, 5.0, 6.0, 9.0, 10.0],
                ),
                ("half", Dtype::Float16, &[3, 4], &counted),
                ("brain", Dtype::Bfloat16, &[4], &[4.0, 5.0, 6.0, 7.0]),
            ],
        );
    }
}

#[test]
fn reads_storage_views_of_legacy_files() {
    assert_tensors(
        &TorchFile::open(fixture("views_legacy.pt")).unwrap(),
        &[
            ("a", Dtype::Float32, &[4], &[1.0, 1.5, 2.0, 2.5]),
            ("b", Dtype::Float32, &[2, 1], &[3.0, 3.5]),
        ],
    );
}

#[test]
fn rejects_unsupported_contents() {
    for name in ["big_endian.pt", "big_endian_legacy.pt"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let message = refusal(&bytes);
        assert!(
            message.contains("byte order") || message.contains("big-endian"),
            "{message}"
        );
    }
    let bytes = fs::read(fixture("float64.pt")).unwrap();
    assert_refused(
        &bytes,
        "tensor `double`: expected F32, F16 or BF16, found F64",
    );
    for bytes in [
        &b""[..],
        b"PK",
        b"PK\x03\x04",
        b"\x08\0\0\0\0\0\0\0{}",
        b"\x80\x02N.",
    ] {
        refusal(bytes);
    }
    let missing = TorchFile::open(fixture("none.pt")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }));
    let file = TorchFile::open(fixture("weights.pt")).unwrap();
    let message = file.read("none").unwrap_err().to_string();
    assert!(message.contains("no tensor `none`"), "{message}");
}

#[test]
fn rejects_truncation_at_every_length() {
    for name in FIXTURES {
        let bytes = fs::read(fixture(name)).unwrap();
        read_all(&bytes).unwrap();
        for len in 0..bytes.len() {
            refusal(&bytes[..len]);
        }
    }
}

#[test]
fn flipped_bytes_give_values_or_one_error_line() {
    // xorshift64*, <https://arxiv.org/abs/1402.6246>: the same cases in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap()
    };
    for name in FIXTURES {
        let original = fs::read(fixture(name)).unwrap();
        let mut refused = 0;
        for _ in 0..600 {
            let mut bytes = original.clone();
            for _ in 0..=random() % 3 {
                let at = random() % bytes.len();
                bytes[at] = u8::try_from(random() % 256).unwrap();
            }
            match read_all(&bytes) {
                Ok(()) => {}
                Err(Error::Checkpoint { .. } | Error::TensorDtype { .. }) => refused += 1,
                Err(other) => panic!("{name}: {other}"),
            }
        }
        assert!(refused > 100, "{name}: only {refused} of 600 were refused");
    }
}

#[test]
fn reads_one_tensor_without_the_rest() {
    // A storage of 2^34 floats in a sparse file; three ones in the middle, the rest zeros.
    let (len, middle) = (1_u64 << 34, 1_u64 << 33);
    let mut bytes = LEGACY_HEAD.to_vec();
    bytes.extend(b"\x80\x02}(");
    for (name, offset) in [("a", middle), ("b", 0)] {
        let storage = storage("FloatStorage", "0", &long(len));
        let tensor = rebuilt(&storage, &long(offset), &[3], &[1]);
        bytes.extend([text(name), tensor].concat());
    }
    bytes.extend(b"u.\x80\x02]");
    bytes.extend([&text("0")[..], b"a."].concat());
    bytes.extend(len.to_le_bytes());
    let data = bytes.len() as u64;
    let scratch = TempFile::new("weights.pt", &bytes);
    let mut file = File::options().write(true).open(&scratch).unwrap();
    file.set_len(data + 4 * len).unwrap();
    file.seek(SeekFrom::Start(data + 4 * middle)).unwrap();
    file.write_all(&[1.0_f32.to_le_bytes(); 3].concat())
        .unwrap();
    drop(file);

    let started = Instant::now();
    let file = TorchFile::open(&scratch).unwrap();
    assert_eq!(values(&file, "a"), [1.0, 1.0, 1.0]);
    assert_eq!(values(&file, "b"), [0.0, 0.0, 0.0]);
    assert!(started.elapsed() < Duration::from_secs(5));
}
