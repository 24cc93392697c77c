//! Valid and malformed zip archives, assembled here.

use super::{
    assert_refused,
    opcodes::{tensor, text},
    read_all,
};

/// `{"weight": value}` with a storage `0` of four floats.
pub(super) fn saved(value: &[u8]) -> Vec<u8> {
    saved_pickle(&[b"\x80\x02}", &text("weight")[..], value, b"s."].concat())
}

pub(super) fn saved_pickle(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        Entry::new("m/data.pkl", pickle),
        Entry::new("m/data/0", &[0; 16]),
    ])
}

/// An entry of a zip archive, with the fields of its headers.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) len: u32,
    pub(super) packed: u32,
    /// Added to the offset of the local header.
    pub(super) shift: u32,
    pub(super) extra: Vec<u8>,
}

impl Entry {
    pub(super) fn new(name: &str, data: &[u8]) -> Self {
        let len = u32::try_from(data.len()).unwrap();
        Self {
            name: name.into(),
            data: data.into(),
            method: 0,
            flags: 0,
            len,
            packed: len,
            shift: 0,
            extra: Vec::new(),
        }
    }
}

pub(super) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    let u16s = |values: &[u16]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let u32s = |values: &[u32]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    for entry in entries {
        let at = u32::try_from(body.len()).unwrap();
        let name_len = u16::try_from(entry.name.len()).unwrap();
        let extra_len = u16::try_from(entry.extra.len()).unwrap();
        let sizes: Vec<u8> = u32s(&[0, entry.packed, entry.len]);
        let format: Vec<u8> = u16s(&[0, entry.flags, entry.method, 0, 0]);
        let lengths: Vec<u8> = u16s(&[name_len, 0]);
        body.extend([b"PK\x03\x04", &format[..], &sizes, &lengths].concat());
        body.extend(entry.name.as_bytes());
        body.extend(&entry.data);
        let lengths: Vec<u8> = u16s(&[name_len, extra_len, 0, 0, 0, 0, 0]);
        directory.extend([b"PK\x01\x02\0\0", &format[..], &sizes, &lengths].concat());
        directory.extend(at.wrapping_add(entry.shift).to_le_bytes());
        directory.extend(entry.name.as_bytes());
        directory.extend(&entry.extra);
    }
    let count = u16::try_from(entries.len()).unwrap();
    let counts: Vec<u8> = u16s(&[0, 0, count, count]);
    let place: Vec<u8> = u32s(&[
        u32::try_from(directory.len()).unwrap(),
        u32::try_from(body.len()).unwrap(),
    ]);
    [
        &body,
        &directory,
        &b"PK\x05\x06"[..],
        &counts,
        &place,
        b"\0\0",
    ]
    .concat()
}

type ChangeEntries = fn(&mut [Entry]);
type Extra = fn(u64) -> Vec<u8>;
type ChangeFile = fn(&[u8]) -> Vec<u8>;

/// A change to the entries, and a part of the resulting error.
const ENTRIES: &[(ChangeEntries, &str)] = &[
    (|entries| entries[1].method = 8, "is compressed"),
    (|entries| entries[0].method = 8, "is compressed"),
    (|entries| entries[1].flags = 1, "is compressed or encrypted"),
    (|entries| entries[1].len = 17, "stored as it is in 16"),
    (|entries| entries[1].len = u32::MAX, "directory is damaged"),
    (
        |entries| (entries[1].len, entries[1].packed) = (17, 17),
        "reaches into the directory",
    ),
    (
        |entries| (entries[1].len, entries[1].packed) = (u32::MAX - 1, u32::MAX - 1),
        "reaches into the directory",
    ),
    (
        |entries| (entries[0].len, entries[0].packed) = (u32::MAX - 1, u32::MAX - 1),
        "reaches into the directory",
    ),
    (
        |entries| (entries[1].len, entries[1].packed) = (12, 12),
        "has 12 bytes",
    ),
    (|entries| entries[1].shift = 1, "header is damaged"),
    (|entries| entries[1].shift = 1 << 31, "header is damaged"),
    (|entries| entries[1].shift = 60, "header is damaged"),
    (|entries| entries[1].name = "m/data.pkl".into(), "twice"),
    (
        |entries| entries[1].name = "n/data.pkl".into(),
        "not a PyTorch file",
    ),
    (
        |entries| entries[0].name = "data.pkl".into(),
        "not a PyTorch file",
    ),
    (
        |entries| entries[0].name = "a/b/data.pkl".into(),
        "not a PyTorch file",
    ),
    (|entries| entries[1].name = "m/data/1".into(), "is missing"),
    (
        |entries| entries[1].name = "m/constants.pkl".into(),
        "TorchScript",
    ),
    (
        |entries| entries[1].name = "m/byteorder".into(),
        "byte order",
    ),
];

/// The zip64 extra field of an entry at an offset, and a part of the resulting error.
const EXTRA_FIELDS: &[(Extra, &str)] = &[
    (
        |at| wide(u64::MAX, u64::MAX, at),
        "reaches into the directory",
    ),
    (|_| wide(16, 16, u64::MAX), "header is damaged"),
    (|at| wide(16, 17, at), "stored as it is"),
    (|at| wide(16, 16, at)[..20].to_vec(), "directory is damaged"),
    (|_| Vec::new(), "directory is damaged"),
];

/// A change to the file, mostly to its end record, and a part of the resulting error.
const ENDS: &[(ChangeFile, &str)] = &[
    (
        |file| patched(file, 10, &[3, 0]),
        "has 2 entries; its end says 3",
    ),
    (
        |file| patched(file, 10, &[1, 0]),
        "has 2 entries; its end says 1",
    ),
    (|file| patched(file, 4, &[1, 0]), "does not end at"),
    (|file| patched(file, 12, &[0xff; 4]), "does not end at"),
    (|file| patched(file, 16, &[0xff; 4]), "does not end at"),
    (|file| patched(file, 20, &[1, 0]), "has no directory"),
    (|file| [file, b"x"].concat(), "has no directory"),
    (|file| [b"PK\x03\x04", file].concat(), "does not end at"),
];

fn pickle() -> Vec<u8> {
    let tensor = tensor(&[4], &[1], 0);
    [b"\x80\x02}", &text("weight")[..], &tensor, b"s."].concat()
}

fn changed(change: ChangeEntries) -> Vec<u8> {
    let mut entries = [
        Entry::new("m/data.pkl", &pickle()),
        Entry::new("m/data/0", &[0; 16]),
    ];
    change(&mut entries);
    zip(&entries)
}

fn wide(size: u64, packed: u64, at: u64) -> Vec<u8> {
    let sizes = [size, packed, at].map(u64::to_le_bytes).concat();
    [&b"\x01\0\x18\0"[..], &sizes].concat()
}

/// A file whose second entry has its sizes and offset in the extra field.
fn in_extra(extra: Extra) -> Vec<u8> {
    let pickle = pickle();
    let at = 30 + "m/data.pkl".len() + pickle.len();
    let mut data = Entry::new("m/data/0", &[0; 16]);
    (data.len, data.packed, data.extra) = (u32::MAX, u32::MAX, extra(at as u64));
    data.shift = u32::MAX.wrapping_sub(u32::try_from(at).unwrap());
    zip(&[Entry::new("m/data.pkl", &pickle), data])
}

/// The file with `value` at offset `at` of its end record.
fn patched(file: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let at = file.len() - 22 + at;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn rejects_malformed_entries() {
    read_all(&changed(|_| {})).unwrap();
    // An unknown extra field is skipped.
    read_all(&changed(|entries| entries[1].extra = vec![1, 0, 24])).unwrap();
    for (change, expected) in ENTRIES {
        assert_refused(&changed(*change), expected);
    }
}

#[test]
fn rejects_malformed_extra_fields() {
    read_all(&in_extra(|at| wide(16, 16, at))).unwrap();
    for (extra, expected) in EXTRA_FIELDS {
        assert_refused(&in_extra(*extra), expected);
    }
}

#[test]
fn rejects_malformed_end_records() {
    let good = changed(|_| {});
    for (change, expected) in ENDS {
        assert_refused(&change(&good), expected);
    }
    // A comment is allowed.
    read_all(&[&patched(&good, 20, &[2, 0])[..], b"hi"].concat()).unwrap();
}
