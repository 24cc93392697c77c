//! Inconsistent, truncated and damaged files.

use std::fs;

use openelm_core::Error;
use openelm_core::{
    Config,
    config::{LayerWiseConfig, Multipliers},
};
use openelm_core::{
    convert::FileType,
    internal::{
        GgufReader, TensorType, Value, Vocabulary, check_tensors, config_from_gguf, read_tensor,
    },
};
use openelm_testing::{Random, TempFile};

use crate::files::{entry, head, key, model_file, spec, text, written};

fn problem(bytes: &[u8]) -> String {
    let file = TempFile::in_memory("test.gguf", bytes);
    match GgufReader::open(&*file) {
        Err(Error::Checkpoint { path, problem }) if path == *file => problem,
        other => panic!("expected Error::Checkpoint, found {other:?}"),
    }
}

/// A header followed by the data of one tensor.
fn with_data(head: Vec<u8>) -> Vec<u8> {
    [head, vec![0; 64]].concat()
}

/// A file with these tensors and no metadata.
fn tensors(entries: &[Vec<u8>]) -> Vec<u8> {
    with_data(head(3, &[], entries))
}

/// A file with this metadata and one tensor.
fn metadata(keys: &[Vec<u8>]) -> Vec<u8> {
    with_data(head(3, keys, &[entry("t", &[4], 0, 0)]))
}

/// A file whose key `k` is an empty array.
fn array(kind: u32, count: u64) -> Vec<u8> {
    let value = [kind.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
    metadata(&[key("k", 9, &value)])
}

/// A file that declares these counts and ends.
fn counts(tensors: u64, keys: u64) -> Vec<u8> {
    let counts = [tensors.to_le_bytes(), keys.to_le_bytes()].concat();
    [b"GGUF\x03\0\0\0".as_slice(), &counts, &[0; 99]].concat()
}

/// Returns the bytes of a file.
type Bytes = fn() -> Vec<u8>;

/// Malformed files, and a part of their error.
const CASES: &[(Bytes, &str)] = &[
    (|| b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
    (|| b"GG".to_vec(), "not a GGUF file"),
    (
        || b"GGUF\x01\0\0\0".to_vec(),
        "GGUF version 1 is not supported",
    ),
    (|| b"GGUF\0\0\0\x03".to_vec(), "big-endian"),
    (
        || b"GGUF\x03\0".to_vec(),
        "truncated: the file ends within its header",
    ),
    (|| counts(0, 0), "the file holds no tensors"),
    (
        || counts(u64::MAX, 0),
        "claims 18446744073709551615 tensors",
    ),
    (
        || counts(4, 0),
        "claims 4 tensors; the file has 107 bytes left",
    ),
    (|| counts(0, u64::MAX), "claims 18446744073709551615 keys"),
    (|| counts(0, 8), "claims 8 keys; the file has 99 bytes left"),
    (
        || metadata(&[key("k", 13, &[])]),
        "`k` has the unknown type 13",
    ),
    (|| metadata(&[key("k", 7, &[2])]), "`k`: 2 is not a boolean"),
    (|| metadata(&[key("", 7, &[1])]), "a key is empty"),
    (
        || metadata(&[key("k", 8, &(1u64 << 40).to_le_bytes())]),
        "`k` claims 1099511627776 bytes",
    ),
    (
        || {
            metadata(&[key(
                "k",
                8,
                &[&2u64.to_le_bytes(), [0xc3, 0x28].as_slice()].concat(),
            )])
        },
        "is not UTF-8",
    ),
    (|| array(9, 1), "`k`: arrays of arrays are not supported"),
    (
        || array(0, 1 << 60),
        "`k` claims 1152921504606846976 values",
    ),
    (|| array(8, 1 << 20), "`k` claims 1048576 values"),
    (
        || metadata(&[key("k", 7, &[1]), key("k", 7, &[0])]),
        "the key `k` occurs twice",
    ),
    (
        || metadata(&[key("general.alignment", 4, &48u32.to_le_bytes())]),
        "`general.alignment`: expected a power of 2",
    ),
    (
        || metadata(&[key("general.alignment", 4, &0u32.to_le_bytes())]),
        "`general.alignment`: expected a power of 2",
    ),
    (
        || metadata(&[key("general.alignment", 8, &text("32"))]),
        "found \"32\"",
    ),
    (
        || tensors(&[entry(&"x".repeat(64), &[4], 0, 0)]),
        "the name of a tensor claims 64 bytes",
    ),
    (
        || tensors(&[entry("t", &[], 0, 0)]),
        "tensor `t`: expected 1 to 4 dimensions, found 0",
    ),
    (
        || tensors(&[entry("t", &[1; 5], 0, 0)]),
        "tensor `t`: expected 1 to 4 dimensions, found 5",
    ),
    (
        || tensors(&[entry("t", &[0, 4], 0, 0)]),
        "tensor `t`: the shape [4, 0] has no elements",
    ),
    (
        || tensors(&[entry("t", &[1 << 40, 1 << 40], 0, 0)]),
        "is too large",
    ),
    (
        || tensors(&[entry("t", &[1 << 62, 3], 8, 0)]),
        "is too large",
    ),
    (
        || tensors(&[entry("t", &[1 << 40], 0, 0)]),
        "tensor `t` takes 4398046511104 bytes at 0",
    ),
    (
        || tensors(&[entry("t", &[33], 8, 0)]),
        "rows of a multiple of 32, found 33",
    ),
    (
        || tensors(&[entry("t", &[256], 12, 0)]),
        "tensor `t` is of ggml type 12, which is not supported",
    ),
    (
        || tensors(&[entry("t", &[4], 0, 8)]),
        "tensor `t` has offset 8, not a multiple of 32",
    ),
    (
        || tensors(&[entry("t", &[4], 0, 64)]),
        "tensor `t` takes 16 bytes at 64",
    ),
    (
        || tensors(&[entry("t", &[4], 0, u64::MAX - 31)]),
        "tensor `t` takes 16 bytes at",
    ),
    (
        || tensors(&[entry("a", &[16], 0, 0), entry("b", &[4], 0, 32)]),
        "tensors `a` and `b` overlap",
    ),
    (
        || tensors(&[entry("a", &[4], 0, 0), entry("b", &[4], 0, 0)]),
        "overlap",
    ),
    (
        || tensors(&[entry("a", &[4], 0, 0), entry("a", &[4], 0, 32)]),
        "tensor `a` occurs twice",
    ),
];

#[test]
fn rejects_malformed_header() {
    for (bytes, expected) in CASES {
        let problem = problem(&bytes());
        assert!(problem.contains(expected), "{problem}: expected {expected}");
    }
}

#[test]
fn rejects_truncation_at_every_length() {
    let vocabulary = Value::strings((0..40).map(|id| format!("token {id}")));
    let entries = [("tokenizer.ggml.tokens".to_owned(), vocabulary)];
    let tensors = [
        (spec("a", TensorType::Q8_0, &[2, 32]), vec![0.5; 64]),
        (spec("b", TensorType::F32, &[8]), vec![0.5; 8]),
    ];
    let bytes = written(&entries, &tensors).unwrap();
    let file = TempFile::in_memory("test.gguf", &bytes);
    assert!(GgufReader::open(&*file).is_ok());
    for length in 0..bytes.len() {
        let message = problem(&bytes[..length]);
        assert!(!message.is_empty(), "{length}");
    }
    // A file that shrinks after it is opened.
    let mut reader = GgufReader::open(&*file).unwrap();
    let handle = fs::OpenOptions::new().write(true).open(&*file).unwrap();
    handle.set_len(bytes.len() as u64 - 1).unwrap();
    let message = reader.read("b").unwrap_err().to_string();
    assert!(
        message.ends_with("truncated within tensor `b`"),
        "{message}"
    );
}

/// Two layers and 300 rows, for thousands of damaged copies.
fn tiny() -> Config {
    Config::layer_wise(LayerWiseConfig {
        model_dim: 32,
        num_transformer_layers: 2,
        head_dim: 8,
        num_gqa_groups: Some(2),
        ffn_multipliers: Multipliers::Range(0.5, 1.0),
        ffn_dim_divisor: 32,
        vocab_size: 300,
        ..LayerWiseConfig::default()
    })
    .unwrap()
}

#[test]
fn damaged_header_never_panics() {
    damage(11, |case, random, table, _| match case % 2 {
        0 => random.below(1_200),
        _ => table + random.below(1_800),
    });
}

#[test]
fn damaged_file_never_panics() {
    damage(12, |case, random, table, end| match case % 2 {
        0 => random.below(end),
        _ => table + random.below(1_800),
    });
}

/// Files with one to three bytes changed. `at` chooses the position from the case, the start of the
/// tensor table and the end of the file, mostly in the header, where damage matters most.
fn damage(seed: u64, at: impl Fn(usize, &mut Random, usize, usize) -> usize) {
    let (bytes, _) = model_file(&tiny(), FileType::Q4_0);
    let table = bytes.windows(17).position(|at| at == b"token_embd.weight");
    let table = table.unwrap();
    let mut random = Random(seed);
    let (mut readable, mut models) = (0, 0);
    for case in 0..2_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = at(case, &mut random, table, bytes.len());
            damaged[at] ^= 1 << random.below(8);
        }
        let file = TempFile::in_memory("test.gguf", &damaged);
        let Ok(mut reader) = GgufReader::open(&*file) else {
            continue;
        };
        readable += 1;
        let names: Vec<String> = reader.tensors().keys().cloned().collect();
        for name in names {
            let elements = reader.tensors()[&name].shape.iter().product::<usize>();
            assert_eq!(reader.read(&name).unwrap().to_f32().len(), elements);
        }
        if let Ok(Some(vocabulary)) = Vocabulary::from_gguf(&reader) {
            drop(vocabulary.to_tokenizer_json());
            drop(vocabulary.unlisted_merges());
        }
        let Ok(config) = config_from_gguf(&reader) else {
            continue;
        };
        if check_tensors(&reader, &config).is_ok() {
            models += 1;
            for (name, _) in config.tensors() {
                read_tensor(&mut reader, &name).unwrap();
            }
        }
    }
    assert!((250..1_750).contains(&readable), "{readable}");
    assert!((50..readable).contains(&models), "{models} of {readable}");
}
