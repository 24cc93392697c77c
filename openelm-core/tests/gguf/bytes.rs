//! The container and its tensor types, compared with llama.cpp's Python package.

use openelm_core::internal::{GgufReader, GgufWriter, TensorSpec, TensorType, Value, ValueType};
use openelm_core::{Dtype, Result};
use openelm_testing::TempFile;

use crate::files::{entry, head, key, spec, written};

fn fixture() -> serde_json::Value {
    serde_json::from_str(include_str!("../fixtures/gguf.json")).unwrap()
}

fn hex(value: &serde_json::Value) -> Vec<u8> {
    let text = value.as_str().unwrap().as_bytes();
    let pairs = text
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (fours, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[test]
fn quantized_bytes_match_llama_cpp() {
    let fixture = fixture();
    let values = floats(&hex(&fixture["values"]));
    assert_eq!(values.len(), 18 * 32);
    for (name, kind, size) in [
        ("F16", TensorType::F16, 1152),
        ("BF16", TensorType::Bf16, 1152),
        ("Q8_0", TensorType::Q8_0, 612),
        ("Q4_0", TensorType::Q4_0, 324),
    ] {
        let tensor = (spec("t", kind, &[18, 32]), values.clone());
        let file = written(&[], &[tensor]).unwrap();
        // The header has 24 + 9 + 4 + 16 + 4 + 8 bytes, padded to 96.
        assert_eq!(
            hex(&fixture["quantized"][name]),
            file[96..96 + size],
            "{name}"
        );
        assert_eq!(file.len(), (96 + size).next_multiple_of(32));
    }
}

#[test]
fn dequantized_values_match_llama_cpp() {
    let fixture = fixture();
    for (name, id, count) in [
        ("Q4_0", 2, 96),
        ("Q4_1", 3, 96),
        ("Q5_0", 6, 96),
        ("Q5_1", 7, 96),
        ("Q8_0", 8, 96),
        ("Q6_K", 14, 256),
    ] {
        let case = &fixture["dequantized"][name];
        let head = head(3, &[], &[entry("t", &[count], id, 0)]);
        let file = TempFile::new("test.gguf", [head, hex(&case["blocks"])].concat());
        let mut reader = GgufReader::open(&*file).unwrap();
        assert_eq!(reader.tensors()["t"].kind.to_string(), name);
        let data = reader.read("t").unwrap();
        assert_eq!(data.dtype, Dtype::Float32);
        assert_eq!(data.bytes, hex(&case["values"]), "{name}");
        assert_eq!(data.to_f32().len(), count as usize);
    }
}

#[test]
fn reads_a_file_of_the_gguf_package() {
    let fixture = fixture();
    let file = TempFile::new("test.gguf", hex(&fixture["file"]["bytes"]));
    let mut reader = GgufReader::open(&*file).unwrap();
    assert_eq!(reader.version(), 3);
    let expected: [(&str, Value); 16] = [
        ("a.bool", Value::Bool(true)),
        ("a.float32", Value::Float32(1e-6)),
        ("a.float64", Value::Float64(0.1)),
        ("a.floats", Value::floats([0.5, -1.5])),
        ("a.int16", Value::Int16(-30_000)),
        ("a.int32", Value::Int32(-2_000_000_000)),
        ("a.int64", Value::Int64(-(1 << 60))),
        ("a.int8", Value::Int8(-100)),
        ("a.ints", Value::ints([1, 2, 3])),
        ("a.string", Value::from("▁naïve 🦙")),
        ("a.texts", Value::strings(["<s>", "", "é"])),
        ("a.uint16", Value::Uint16(60_000)),
        ("a.uint32", Value::Uint32(4_000_000_000)),
        ("a.uint64", Value::Uint64(1 << 60)),
        ("a.uint8", Value::Uint8(200)),
        ("general.architecture", Value::from("openelm")),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value));
    assert!(
        reader
            .metadata()
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .eq(expected)
    );

    let first = reader.read("first").unwrap();
    assert_eq!(reader.tensors()["first"].shape, [2, 3]);
    assert_eq!(first.to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let second = reader.read("second").unwrap();
    assert_eq!((second.dtype, second.bytes.len()), (Dtype::Float16, 6));
    assert_eq!(second.to_f32(), [1.0, -2.0, 0.5]);
    assert_eq!(reader.tensors()["third"].shape, [2, 64]);
    let third = reader.read("third").unwrap();
    assert_eq!(third.bytes, hex(&fixture["file"]["third"]));
    let message = reader.read("fourth").unwrap_err().to_string();
    assert!(
        message.ends_with("there is no tensor `fourth`"),
        "{message}"
    );
}

#[test]
fn metadata_of_every_type_round_trips() {
    let entries: Vec<(String, Value)> = [
        ("u8", Value::Uint8(1)),
        ("i8", Value::Int8(-1)),
        ("u16", Value::Uint16(2)),
        ("i16", Value::Int16(-2)),
        ("u32", Value::Uint32(3)),
        ("i32", Value::Int32(-3)),
        ("f32", Value::Float32(0.1)),
        ("bool", Value::Bool(false)),
        ("text", Value::from("a\0b")),
        ("u64", Value::Uint64(u64::MAX)),
        ("i64", Value::Int64(i64::MIN)),
        ("f64", Value::Float64(-0.1)),
        ("none", Value::Array(ValueType::Uint8, Vec::new())),
        (
            "bools",
            Value::Array(ValueType::Bool, vec![true.into(), false.into()]),
        ),
        ("texts", Value::strings(["", "▁"])),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let tensor = (spec("t", TensorType::Bf16, &[2, 1, 3]), vec![1.5; 6]);
    let file = TempFile::new("test.gguf", written(&entries, &[tensor]).unwrap());
    let mut reader = GgufReader::open(&*file).unwrap();
    assert_eq!(reader.metadata().len(), 15);
    for (key, value) in entries {
        assert_eq!(reader.metadata()[&key], value);
    }
    assert_eq!(reader.tensors()["t"].shape, [2, 1, 3]);
    assert_eq!(reader.tensors()["t"].bytes(), 12);
    assert_eq!(reader.read("t").unwrap().bytes, [0xc0, 0x3f].repeat(6));
}

#[test]
fn reads_version_2_and_other_alignments() {
    let alignment = key("general.alignment", 4, &64u32.to_le_bytes());
    let tensors = [entry("a", &[2], 0, 0), entry("b", &[1], 0, 64)];
    let mut bytes = head(2, &[alignment], &tensors);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend([1.5f32, 2.5].iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend([0; 56]);
    bytes.extend(3.5f32.to_le_bytes());
    let file = TempFile::new("test.gguf", &bytes);
    let mut reader = GgufReader::open(&*file).unwrap();
    assert_eq!(reader.version(), 2);
    assert_eq!(reader.read("a").unwrap().to_f32(), [1.5, 2.5]);
    assert_eq!(reader.read("b").unwrap().to_f32(), [3.5]);
}

#[test]
fn writer_checks_the_announced_tensors() {
    let two = || {
        vec![
            spec("a", TensorType::F32, &[2, 3]),
            spec("b", TensorType::F16, &[1]),
        ]
    };
    let message = |result: Result<()>| result.unwrap_err().to_string();
    let mut writer = GgufWriter::new(Vec::new(), "new.gguf", &[], two()).unwrap();
    assert_eq!(
        message(writer.write("b", &[1.0])),
        "new.gguf: expected tensor `a`, found `b`"
    );
    assert!(message(writer.write("a", &[1.0; 2])).contains("expected rows of 3, at most 6"));
    writer.write("a", &[1.0; 3]).unwrap();
    assert!(message(writer.write("a", &[1.0; 6])).contains("at most 3 elements, found 6"));
    writer.write("a", &[2.0; 3]).unwrap();
    assert!(message(writer.write("b", &[1e6])).contains("tensor `b`: 1000000 is beyond"));
    writer.write("b", &[0.5]).unwrap();
    assert!(message(writer.write("c", &[1.0])).contains("tensor `c` is not in the header"));
    let file = TempFile::new("test.gguf", writer.finish().unwrap());
    let mut reader = GgufReader::open(&*file).unwrap();
    assert_eq!(
        reader.read("a").unwrap().to_f32(),
        [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    );
    assert_eq!(reader.read("b").unwrap().to_f32(), [0.5]);

    let mut half = GgufWriter::new(Vec::new(), "new.gguf", &[], two()).unwrap();
    half.write("a", &[1.0; 3]).unwrap();
    assert!(message(half.finish().map(drop)).contains("tensor `a` is not completely written"));

    let refused = |metadata: &[(String, Value)], tensors: Vec<TensorSpec>| {
        message(GgufWriter::new(Vec::new(), "new.gguf", metadata, tensors).map(drop))
    };
    let entry = |key: &str| (key.to_owned(), Value::Bool(true));
    assert!(refused(&[entry("k"), entry("k")], two()).contains("the key `k`"));
    assert!(refused(&[entry("general.alignment")], two()).contains("general.alignment"));
    let mixed = Value::Array(ValueType::Bool, vec![1u32.into()]);
    assert!(refused(&[("k".into(), mixed)], two()).contains("an array of Bool holds 1"));
    let twice = [two(), two()].concat();
    assert!(refused(&[], twice).contains("tensor `a`: the name is"));
    let ragged = vec![spec("t", TensorType::Q4_0, &[3, 33])];
    assert!(refused(&[], ragged).contains("tensor `t`: the type Q4_0 needs rows"));
}
