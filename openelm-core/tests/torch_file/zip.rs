//! Zip archives: made here, and refused where they lie.

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

/// An entry of a zip archive, and what the archive says of it.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) len: u32,
    pub(super) packed: u32,
    /// Added to where its local header is.
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

#[test]
fn archives_that_lie_are_refused() {
    let pickle = [
        b"\x80\x02}",
        &text("weight")[..],
        &tensor(&[4], &[1], 0),
        b"s.",
    ]
    .concat();
    let with = |change: fn(&mut [Entry])| {
        let mut entries = [
            Entry::new("m/data.pkl", &pickle),
            Entry::new("m/data/0", &[0; 16]),
        ];
        change(&mut entries);
        zip(&entries)
    };
    read_all(&with(|_| {})).unwrap();
    // An extra field without meaning is passed over.
    read_all(&with(|entries| entries[1].extra = vec![1, 0, 24])).unwrap();
    let wide = |size: u64, packed: u64, at: u64| {
        let sizes = [size, packed, at].map(u64::to_le_bytes).concat();
        [&b"\x01\0\x18\0"[..], &sizes].concat()
    };
    for (bytes, because) in [
        (with(|entries| entries[1].method = 8), "is compressed"),
        (with(|entries| entries[0].method = 8), "is compressed"),
        (
            with(|entries| entries[1].flags = 1),
            "is compressed or encrypted",
        ),
        (with(|entries| entries[1].len = 17), "stored as it is in 16"),
        (
            with(|entries| entries[1].len = u32::MAX),
            "directory is damaged",
        ),
        (
            with(|entries| (entries[1].len, entries[1].packed) = (17, 17)),
            "reaches into the directory",
        ),
        (
            with(|entries| (entries[1].len, entries[1].packed) = (u32::MAX - 1, u32::MAX - 1)),
            "reaches into the directory",
        ),
        (
            with(|entries| (entries[0].len, entries[0].packed) = (u32::MAX - 1, u32::MAX - 1)),
            "reaches into the directory",
        ),
        (
            with(|entries| (entries[1].len, entries[1].packed) = (12, 12)),
            "has 12 bytes",
        ),
        (with(|entries| entries[1].shift = 1), "header is damaged"),
        (
            with(|entries| entries[1].shift = 1 << 31),
            "header is damaged",
        ),
        (with(|entries| entries[1].shift = 60), "header is damaged"),
        (
            with(|entries| entries[1].name = "m/data.pkl".into()),
            "twice",
        ),
        (
            with(|entries| entries[1].name = "n/data.pkl".into()),
            "not a PyTorch file",
        ),
        (
            with(|entries| entries[0].name = "data.pkl".into()),
            "not a PyTorch file",
        ),
        (
            with(|entries| entries[0].name = "a/b/data.pkl".into()),
            "not a PyTorch file",
        ),
        (
            with(|entries| entries[1].name = "m/data/1".into()),
            "is missing",
        ),
        (
            with(|entries| entries[1].name = "m/constants.pkl".into()),
            "TorchScript",
        ),
        (
            with(|entries| entries[1].name = "m/byteorder".into()),
            "byte order",
        ),
    ] {
        assert_refused(&bytes, because);
    }

    let in_extra = |extra: Vec<u8>| {
        let mut data = Entry::new("m/data/0", &[0; 16]);
        (data.len, data.packed, data.extra) = (u32::MAX, u32::MAX, extra);
        // Its header's place is moved to the extra field as well.
        let at = u32::try_from(30 + "m/data.pkl".len() + pickle.len()).unwrap();
        data.shift = u32::MAX.wrapping_sub(at);
        zip(&[Entry::new("m/data.pkl", &pickle), data])
    };
    let at = 30 + "m/data.pkl".len() as u64 + pickle.len() as u64;
    read_all(&in_extra(wide(16, 16, at))).unwrap();
    for (extra, because) in [
        (wide(u64::MAX, u64::MAX, at), "reaches into the directory"),
        (wide(16, 16, u64::MAX), "header is damaged"),
        (wide(16, 17, at), "stored as it is"),
        (wide(16, 16, at)[..20].to_vec(), "directory is damaged"),
        (Vec::new(), "directory is damaged"),
    ] {
        assert_refused(&in_extra(extra), because);
    }

    let good = with(|_| {});
    let end = good.len() - 22;
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    for (bytes, because) in [
        (patched(end + 10, &[3, 0]), "has 2 entries; its end says 3"),
        (patched(end + 10, &[1, 0]), "has 2 entries; its end says 1"),
        (patched(end + 4, &[1, 0]), "does not lead up"),
        (patched(end + 12, &[0xff; 4]), "does not lead up"),
        (patched(end + 16, &[0xff; 4]), "does not lead up"),
        (patched(end + 20, &[1, 0]), "has no directory"),
        ([&good[..], b"x"].concat(), "has no directory"),
        ([b"PK\x03\x04", &good[..]].concat(), "does not lead up"),
    ] {
        assert_refused(&bytes, because);
    }
    // A comment is none of our business.
    read_all(&[&patched(end + 20, &[2, 0])[..], b"hi"].concat()).unwrap();
}
