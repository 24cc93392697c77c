//! Pickles assembled opcode by opcode, with the names of CPython's pickletools: X is BINUNICODE, J
//! BININT, t TUPLE, Q BINPERSID, R REDUCE, s SETITEM.

/// Magic number, version and machine of the legacy format.
pub(super) const LEGACY_HEAD: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\
                             \xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";

pub(super) fn text(value: &str) -> Vec<u8> {
    let len = u32::try_from(value.len()).unwrap().to_le_bytes();
    [b"X", &len[..], value.as_bytes()].concat()
}

pub(super) fn int(value: i32) -> Vec<u8> {
    [b"J", &value.to_le_bytes()[..]].concat()
}

pub(super) fn long(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    match i64::try_from(value) {
        Ok(_) => [b"\x8a\x08", &bytes[..]].concat(),
        Err(_) => [b"\x8a\x09", &bytes[..], b"\0"].concat(),
    }
}

pub(super) fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub(super) fn ints(values: &[i32]) -> Vec<u8> {
    let items: Vec<u8> = values.iter().flat_map(|&value| int(value)).collect();
    [b"(", &items[..], b"t"].concat()
}

pub(super) fn storage(class: &str, key: &str, len: &[u8]) -> Vec<u8> {
    let class = global("torch", class);
    let (kind, key, device) = (text("storage"), text(key), text("cpu"));
    [b"(", &kind[..], &class, &key, &device, len, b"tQ"].concat()
}

pub(super) fn rebuilt(storage: &[u8], offset: &[u8], shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let rebuild = global("torch._utils", "_rebuild_tensor_v2");
    let (shape, strides) = (ints(shape), ints(strides));
    [
        &rebuild,
        &b"("[..],
        storage,
        offset,
        &shape,
        &strides,
        b"\x89Nt",
        b"R",
    ]
    .concat()
}

/// Four floats: the storage `0` of [`saved`].
pub(super) fn tensor(shape: &[i32], strides: &[i32], offset: i32) -> Vec<u8> {
    rebuilt(
        &storage("FloatStorage", "0", &int(4)),
        &int(offset),
        shape,
        strides,
    )
}
