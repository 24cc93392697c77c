//! Files of the repository, external data, and generated model files.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join(path)
}

/// The folder of the bundled model: 2.5 million parameters, with a tokenizer.
pub fn tales() -> PathBuf {
    repository("openelm-core/tests/fixtures/tales")
}

/// The folder of data outside the repository: `OPENELM_TEST_DATA`.
///
/// Tests that use it are in modules called `external_data` and ignored by default.
///
/// # Panics
/// If the variable is not set.
pub fn external_data() -> PathBuf {
    let folder = env::var_os("OPENELM_TEST_DATA").expect(
        "OPENELM_TEST_DATA is not set: it names a folder with llama-tokenizer/, fairytaleqa/ and \
         corpus/",
    );
    PathBuf::from(folder)
}

/// Writes a model of bfloat16 zeros as a sparse file, with `config` as its config.json and
/// `tensors` by name and shape.
pub fn write_zeros(folder: &Path, config: &str, tensors: &[(String, Vec<usize>)]) {
    let (file, end) = begin_weights(folder, config, tensors, "BF16");
    file.set_len(end).unwrap();
}

/// Like [`write_zeros`] with float16 weights: each tensor's bytes are `pattern` repeated. Uses the
/// memory of one tensor.
pub fn write_weights(
    folder: &Path,
    config: &str,
    tensors: &[(String, Vec<usize>)],
    pattern: &[u8],
) {
    let (mut file, _) = begin_weights(folder, config, tensors, "F16");
    for (_, shape) in tensors {
        let size = 2 * shape.iter().product::<usize>();
        let data = pattern.repeat(size / pattern.len() + 1);
        file.write_all(&data[..size]).unwrap();
    }
}

/// Writes the model of [`tales`] to `folder`, with numbers of bfloat16 tensors replaced: each by its
/// tensor's name, its index and its new value.
pub fn write_tales(folder: &Path, changes: &[(&str, usize, f32)]) {
    for entry in fs::read_dir(tales()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (name, index, value) in changes {
        let tensor = &header[*name];
        assert_eq!(tensor["dtype"], "BF16", "{name}");
        let start = tensor["data_offsets"][0].as_u64().unwrap() as usize;
        let at = 8 + length + start + 2 * index;
        let number = (value.to_bits() >> 16) as u16;
        bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

/// Writes config.json and the header of model.safetensors. Returns the open file and its final
/// length.
fn begin_weights(
    folder: &Path,
    config: &str,
    tensors: &[(String, Vec<usize>)],
    dtype: &str,
) -> (File, u64) {
    fs::write(folder.join("config.json"), config).unwrap();
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let tensor = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), tensor);
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    (file, (8 + header.len() + end) as u64)
}

/// `text` in the encodings that editors write, with their names.
pub fn encodings(text: &str) -> [(&'static str, Vec<u8>); 4] {
    let marked = format!("\u{FEFF}{text}");
    [
        ("UTF-8", text.into()),
        ("UTF-8 with a mark", marked.into()),
        ("UTF-16, big-endian", utf16(text, true)),
        ("UTF-16, little-endian", utf16(text, false)),
    ]
}

/// `text` in UTF-16 with a byte order mark.
pub fn utf16(text: &str, is_big: bool) -> Vec<u8> {
    let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
    let bytes = units.map(|unit: u16| {
        if is_big {
            unit.to_be_bytes()
        } else {
            unit.to_le_bytes()
        }
    });
    bytes.flatten().collect()
}

/// `bytes`, compressed with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zip archive of uncompressed entries.
pub fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let at = body.len() as u32;
        let size = data.len() as u32;
        // Version, flags, method, time and date; then checksum and sizes, name and extra field.
        let mut shared = vec![0; 14];
        shared.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        shared.extend([(name.len() as u16).to_le_bytes(), [0; 2]].concat());
        body.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0", &shared[..], &[0; 10]].concat());
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let end = [
        (directory.len() as u32).to_le_bytes(),
        (body.len() as u32).to_le_bytes(),
    ]
    .concat();
    let head = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count].concat();
    [body, directory, head, end, vec![0; 2]].concat()
}
