//! Inconsistent tensors, storages and names.

use openelm_core::internal::TorchFile;
use openelm_testing::TempFile;

use super::{
    assert_refused,
    opcodes::{self, LEGACY_HEAD, int, long, rebuilt, tensor, text},
    read_all,
    zip::{saved, saved_pickle},
};

#[test]
fn rejects_tensors_beyond_their_storage() {
    for (shape, strides, offset, because) in [
        (&[5][..], &[1][..], 0, "exceed its storage of 4 elements"),
        (&[4], &[1], 1, "exceed its storage"),
        (&[2], &[4], 0, "exceed its storage"),
        (&[1], &[1], 4, "exceed its storage"),
        (&[0], &[1], 5, "exceed its storage"),
        (&[2, 2], &[i32::MAX, i32::MAX], 0, "exceed its storage"),
        (&[i32::MAX, i32::MAX], &[0, 0], 0, "repeats elements"),
        (&[5], &[0], 0, "repeats elements"),
        (
            &[i32::MAX, i32::MAX, i32::MAX],
            &[0, 0, 0],
            0,
            "is too large",
        ),
        (&[-1], &[1], 0, "natural numbers"),
        (&[4], &[-1], 0, "natural numbers"),
        (&[4], &[1], -1, "natural number"),
        (&[4], &[1, 1], 0, "1 sizes and 2 strides"),
        (&[1; 9], &[1; 9], 0, "more than 8 dimensions"),
    ] {
        assert_refused(&saved(&tensor(shape, strides, offset)), because);
    }
    let long_key = "0".repeat(65);
    for (class, key, len, because) in [
        ("FloatStorage", long_key.as_str(), int(4), "persistent id"),
        ("FloatStorage", "0", int(3), "has 16 bytes"),
        ("FloatStorage", "0", int(5), "has 16 bytes"),
        ("FloatStorage", "0", int(-4), "persistent id"),
        ("FloatStorage", "0", long(u64::MAX), "persistent id"),
        ("FloatStorage", "0", long(1 << 62), "has 16 bytes"),
        ("HalfStorage", "0", int(4), "has 16 bytes"),
        ("FloatStorage", "1", int(4), "`m/data/1` is missing"),
        ("FloatStorage", "../../0", int(4), "is missing"),
        ("FloatStorage", "", int(4), "is missing"),
        ("LongStorage", "0", int(2), "found I64"),
        ("NoStorage", "0", int(4), "persistent id"),
    ] {
        let tensor = rebuilt(&opcodes::storage(class, key, &len), &int(0), &[1], &[1]);
        assert_refused(&saved(&tensor), because);
    }
}

#[test]
fn rejects_invalid_names() {
    let value = tensor(&[4], &[1], 0);
    for (entries, because) in [
        (vec![(text("a"), &value), (text("a"), &value)], "twice"),
        (vec![(text(""), &value)], "empty"),
        (vec![(text("a\nb"), &value)], "not printable"),
        (vec![(text(&"a".repeat(2000)), &value)], "longer"),
        (vec![(int(1), &value)], "a key of its state dict"),
        (vec![], "empty"),
        (
            vec![
                (text("model_state_dict"), &b"}".to_vec()),
                (text("model_state_dict"), &b"}".to_vec()),
            ],
            "twice",
        ),
        (vec![(text("epoch"), &int(3))], "`epoch` is an integer"),
    ] {
        let entries: Vec<u8> = entries
            .iter()
            .flat_map(|(name, value)| [&name[..], &value[..]].concat())
            .collect();
        let pickle = [b"\x80\x02}(", &entries[..], b"u."].concat();
        assert_refused(&saved_pickle(&pickle), because);
    }
    // The wrapper's prefix is kept if not all names have it.
    let entries = [text("module.a"), value.clone(), text("b"), value].concat();
    let pickle = [b"\x80\x02}(", &entries[..], b"u."].concat();
    let scratch = TempFile::new("weights.pt", saved_pickle(&pickle));
    let file = TorchFile::open(&scratch).unwrap();
    let names: Vec<&String> = file.tensors().keys().collect();
    assert_eq!(names, ["b", "module.a"]);
}

#[test]
fn rejects_malformed_legacy_files() {
    let saved = |keys: &[&str], data: &[u8]| {
        let object = [b"}", &text("weight")[..], &tensor(&[4], &[1], 0), b"s"].concat();
        let keys: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
        [
            LEGACY_HEAD,
            b"\x80\x02",
            &object,
            b".\x80\x02](",
            &keys,
            b"e.",
            data,
        ]
        .concat()
    };
    let storage = |len: u64| [&len.to_le_bytes()[..], &[0; 16]].concat();
    read_all(&saved(&["0"], &storage(4))).unwrap();
    for (bytes, because) in [
        (saved(&[], &[]), "not in the list of storages"),
        (saved(&["1"], &storage(4)), "no tensor uses"),
        (saved(&["0", "0"], &storage(4).repeat(2)), "or one twice"),
        (
            saved(&["0"], &storage(5)),
            "has 5 elements; the pickle says 4",
        ),
        (saved(&["0"], &storage(u64::MAX)), "the pickle says 4"),
        (saved(&["0"], &storage(4)[..23]), "truncated"),
        (saved(&["0"], &[]), "truncated"),
    ] {
        assert_refused(&bytes, because);
    }
    let huge = rebuilt(
        &opcodes::storage("DoubleStorage", "0", &long(1 << 62)),
        &int(0),
        &[1],
        &[1],
    );
    let data = [&text("0")[..], b"a.", &(1_u64 << 62).to_le_bytes()].concat();
    let bytes = [LEGACY_HEAD, b"\x80\x02", &huge, b".\x80\x02]", &data].concat();
    assert_refused(&bytes, "truncated");
    let version = LEGACY_HEAD
        .iter()
        .map(|&byte| if byte == 0xe9 { 0xe8 } else { byte })
        .collect::<Vec<u8>>();
    assert_refused(&version, "version 1001");
}
