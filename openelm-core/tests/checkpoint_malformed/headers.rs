//! Safetensors files with false headers.

use std::fs;

use safetensors::Dtype as Stored;

use crate::folders::{
    EMBEDDINGS, SINGLE, assert_names, assert_refused, file, header_end, open, raw, tensors,
    with_config,
};

#[test]
fn rejects_truncation_at_any_length() {
    let folder = with_config();
    let bytes = file(&tensors(Stored::F16));
    folder.write(SINGLE, &bytes);
    open(&folder).unwrap();
    let mut options = fs::File::options();
    let shrinking = options.write(true).open(folder.join(SINGLE)).unwrap();
    for length in (0..bytes.len()).rev() {
        shrinking.set_len(length as u64).unwrap();
        let part = match length {
            0..8 => "not a safetensors file",
            _ if length < header_end(&bytes) => "the header claims",
            _ => "truncated or damaged",
        };
        assert_refused(&folder, SINGLE, &[part]);
    }
    // Bytes after the last tensor are invalid, too.
    folder.write(SINGLE, [&bytes[..], b"x"].concat());
    assert_refused(&folder, SINGLE, &["truncated or damaged"]);
}

/// A clone without Git LFS holds pointers in place of the weights.
#[test]
fn rejects_git_lfs_pointers_by_name() {
    let folder = with_config();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n";
    folder.write(SINGLE, pointer);
    assert_refused(&folder, SINGLE, &["a Git LFS pointer", "download the file"]);
    let path = folder.write("tokenizer.json", pointer);
    let error = openelm_core::Tokenizer::find(&path, Some(&path)).unwrap_err();
    assert!(error.to_string().contains("a Git LFS pointer"), "{error}");
}

#[test]
fn rejects_wrong_header_lengths() {
    let folder = with_config();
    let bytes = file(&tensors(Stored::F16));
    let length = bytes.len() as u64;
    for claim in [
        length - 7,
        length,
        100_000_000,
        100_000_001,
        u64::from(u32::MAX),
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&claim.to_le_bytes());
        folder.write(SINGLE, &bytes);
        let claim = format!("claims {claim} bytes");
        assert_refused(&folder, SINGLE, &[&claim]);
    }
    for claim in [0, 1, 7, header_end(&bytes) as u64 - 20, length - 8] {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&claim.to_le_bytes());
        folder.write(SINGLE, &bytes);
        assert_refused(&folder, SINGLE, &["header is malformed"]);
    }
}

#[test]
fn rejects_malformed_headers() {
    let folder = with_config();
    let deep_list = "[".repeat(100_000);
    let deep = format!(r#"{{"a":{}"#, r#"{"b":"#.repeat(100_000));
    let headers: [&[u8]; 17] = [
        b"",
        b" ",
        b"\0\0",
        b"not json",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"null",
        b"7",
        b"[]",
        b"{",
        b"{} {}",
        br#"{"a"}"#,
        br#"{"a":1e400}"#,
        br#"{"\ud800":1}"#,
        br#"{"__metadata__":{"a":1}}"#,
        deep_list.as_bytes(),
        deep.as_bytes(),
    ];
    for header in headers {
        folder.write(SINGLE, raw(header, b""));
        assert_refused(&folder, SINGLE, &["header is malformed"]);
    }
    // An empty file is well-formed, but not a model.
    for header in ["{}", r#"{"__metadata__":null}"#, r#"{"__metadata__":{}}"#] {
        folder.write(SINGLE, raw(header, b""));
        let error = open(&folder).map(drop).unwrap_err();
        assert_names(&error, &folder, &["missing", "transformer.layers.0"]);
    }
}

#[test]
fn rejects_wrong_tensor_entries() {
    let folder = with_config();
    // Each case calls the invalid tensor `bad`.
    let cases = [
        r#""bad":1"#,
        r#""bad":null"#,
        r#""bad":{}"#,
        r#""bad":{"shape":[2],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[2]}"#,
        r#""bad":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":4,"shape":[2],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":2,"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[0]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#,
        r#""bad":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}"#,
        r#""bad":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}"#,
        r#""bad":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}"#,
        r#""bad":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}"#,
        r#""bad":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#,
        r#""bad":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#,
        // A gap before the tensor, and an overlap with the previous tensor.
        r#""a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"bad":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}"#,
        r#""a":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"bad":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}"#,
    ];
    for case in cases {
        folder.write(SINGLE, raw(format!("{{{case}}}"), &[0; 8]));
        assert_refused(&folder, SINGLE, &["header is malformed", "`bad`"]);
    }
    // Two tensors with the same bytes: either may be named.
    let twin = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    folder.write(
        SINGLE,
        raw(format!(r#"{{"a":{twin},"b":{twin}}}"#), &[0; 8]),
    );
    assert_refused(&folder, SINGLE, &["invalid offset for tensor"]);
    // Well-formed, but the file ends before the tensor or after it.
    for (shape, bytes) in [(1, 4), (3, 12), (1_u64 << 40, 1_u64 << 42)] {
        let header =
            format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{bytes}]}}}}"#);
        folder.write(SINGLE, raw(header, &[0; 8]));
        let describes = format!("describes {bytes} bytes of tensors, found 8");
        assert_refused(&folder, SINGLE, &[&describes]);
    }
}

#[test]
fn rejects_tensors_of_other_types() {
    let folder = with_config();
    for (dtype, size) in [
        (Stored::I64, 8),
        (Stored::F64, 8),
        (Stored::I32, 4),
        (Stored::U8, 1),
        (Stored::BOOL, 1),
        (Stored::F8_E4M3, 1),
        (Stored::F8_E5M2, 1),
        (Stored::C64, 8),
    ] {
        let mut tensors = tensors(Stored::BF16);
        let norm = tensors.get_mut("transformer.norm.weight").unwrap();
        (norm.dtype, norm.data) = (dtype, vec![0; 16 * size]);
        folder.write(SINGLE, file(&tensors));
        let found = format!("found {dtype:?}");
        let parts = ["`transformer.norm.weight`", "F32, F16 or BF16", &found];
        assert_refused(&folder, SINGLE, &parts);
    }
}

#[test]
fn rejects_missing_extra_or_misshapen_tensors() {
    let folder = with_config();
    let good = tensors(Stored::F16);
    for name in good.keys() {
        let mut tensors = good.clone();
        let taken = tensors.remove(name).unwrap();
        folder.write(SINGLE, file(&tensors));
        let error = open(&folder).map(drop).unwrap_err();
        let shape = format!("{:?}", taken.shape);
        assert_names(&error, &folder, &[name, &shape, "missing"]);

        let mut tensors = good.clone();
        let tensor = tensors.get_mut(name).unwrap();
        tensor.shape.push(1);
        folder.write(SINGLE, file(&tensors));
        let shape = format!("expected shape {:?}, found {:?}", taken.shape, {
            [&taken.shape[..], &[1]].concat()
        });
        assert_refused(&folder, SINGLE, &[name, &shape]);
    }
    // The same number of elements, transposed.
    let mut tensors = good.clone();
    tensors.get_mut(EMBEDDINGS).unwrap().shape.reverse();
    folder.write(SINGLE, file(&tensors));
    assert_refused(
        &folder,
        SINGLE,
        &[EMBEDDINGS, "expected shape [32, 16], found [16, 32]"],
    );
    for extra in [
        "lm_head.weight",
        "",
        "transformer.layers.2.attn_norm.weight",
    ] {
        let mut tensors = good.clone();
        tensors.insert(extra.into(), tensors["transformer.norm.weight"].clone());
        folder.write(SINGLE, file(&tensors));
        let name = format!("`{extra}`");
        assert_refused(&folder, SINGLE, &[&name, "does not belong"]);
    }
}
