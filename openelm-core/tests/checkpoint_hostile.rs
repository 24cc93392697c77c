//! Whatever lies in a model folder, opening it ends in a model or in one line that names the file
//! and the tensor or field; never in a panic, nor in an abort inside MLX.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    collections::BTreeMap,
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process,
};

use half::{bf16, f16};
use mlx_rs::Array;
use openelm_core::{
    Checkpoint, Dtype, Error, Event, GenerateOptions, Generation, LanguageModel, LoadOptions,
    Model, ReadOptions, Result, Sampling, Weights,
    config::{Config, LayerWise},
    model_folder,
};
use safetensors::{Dtype as Stored, tensor::TensorView};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const EMBEDDINGS: &str = "transformer.token_embeddings.weight";

/// xorshift64*, <https://arxiv.org/abs/1402.6246>: the same cases in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A folder that goes when its test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openelm-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With the tiny model's `config.json`.
    fn with_config(name: &str) -> Self {
        let folder = Self::new(name);
        folder.write("config.json", tiny().to_json());
        folder
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.join(name), bytes).unwrap();
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two layers of width 16; 18 tensors, 22 kB in float32.
fn tiny() -> Config {
    let settings = LayerWise {
        model_dim: 16,
        num_transformer_layers: 2,
        head_dim: 8,
        num_gqa_groups: Some(1),
        ffn_dim_divisor: 8,
        vocab_size: 32,
        max_context_length: 32,
        ..LayerWise::default()
    };
    Config::layer_wise(settings).unwrap()
}

/// A tensor as a weight file holds it.
#[derive(Clone)]
struct Tensor {
    dtype: Stored,
    shape: Vec<usize>,
    data: Vec<u8>,
}

type Tensors = BTreeMap<String, Tensor>;

/// The tiny model's tensors. The values are multiples of 1/128 up to 1, which all three types
/// hold exactly.
fn tensors(dtype: Stored) -> Tensors {
    let mut random = Random(9);
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|_| random.below(257) as f32 / 128.0 - 1.0);
        let data = values.flat_map(|value| match dtype {
            Stored::F32 => value.to_le_bytes().to_vec(),
            Stored::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Stored::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            other => panic!("{other:?}"),
        });
        let data = data.collect();
        (name, Tensor { dtype, shape, data })
    };
    tiny().tensors().into_iter().map(&mut tensor).collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data);
        (name, view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// A weight file whose header says what it is told to.
fn raw(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

fn index(map: &BTreeMap<String, String>) -> String {
    serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()
}

/// Writes the tensors into three shards with an index and returns what the index lists.
fn shards(folder: &Folder, tensors: &Tensors) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for shard in 0..3 {
        let name = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let part: Tensors = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 3 == shard)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        folder.write(&name, file(&part));
        map.extend(part.into_keys().map(|tensor| (tensor, name.clone())));
    }
    folder.write(INDEX, index(&map));
    map
}

fn open(path: &Path) -> Result<(Config, Checkpoint)> {
    let folder = model_folder(path)?;
    let config = Config::load(&folder)?;
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.check(&config)?;
    Ok((config, checkpoint))
}

fn model(path: &Path, dtype: Dtype) -> Result<Model> {
    let (config, checkpoint) = open(path)?;
    let weights = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype,
            keep_quantized: false,
        },
        &mut |_, _| {},
    )?;
    Model::new(config, weights, dtype)
}

/// Logits of four tokens, 4 × 32.
fn logits(model: &Model) -> Vec<f32> {
    let tokens = Array::from_slice(&[1_u32, 7, 30, 4], &[1, 4]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    let logits = model.logits(&hidden).unwrap();
    assert_eq!(logits.shape(), [1, 4, 32]);
    let logits = logits.as_dtype(mlx_rs::Dtype::Float32).unwrap();
    logits.to_vec_exact::<f32>().unwrap()
}

/// Checks that an error is one line that begins with the file at fault and has all of `parts`.
#[track_caller]
fn assert_names(error: &Error, file: &Path, parts: &[&str]) {
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    let start = format!("{}: ", file.display());
    assert!(message.starts_with(&start), "{start} | {message}");
    for part in parts {
        assert!(message.contains(part), "{part} | {message}");
    }
}

#[track_caller]
fn assert_refused(folder: &Path, file: &str, parts: &[&str]) {
    let error = open(folder).map(drop).unwrap_err();
    assert_names(&error, &folder.join(file), parts);
}

#[test]
fn empty_and_incomplete_folders() {
    let folder = Folder::new("incomplete");
    let parts = ["not found", "model.safetensors"];
    assert_refused(&folder, "config.json", &parts);

    folder.write("config.json", tiny().to_json());
    let error = open(&folder).map(drop).unwrap_err();
    assert_names(&error, &folder, &[SINGLE, INDEX]);

    let nowhere = folder.join("nowhere");
    assert_names(&open(&nowhere).map(drop).unwrap_err(), &nowhere, &[]);
    // A file in place of a folder.
    let file = folder.join("config.json");
    let error = open(&file).map(drop).unwrap_err();
    assert_names(&error, &file.join("config.json"), &["not found"]);
    // A folder in place of a file.
    fs::create_dir(folder.join(SINGLE)).unwrap();
    let error = open(&folder).map(drop).unwrap_err();
    assert_names(&error, &folder, &[SINGLE]);
}

#[test]
fn files_cut_at_any_length() {
    let folder = Folder::with_config("cut");
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
    // Bytes after the last tensor are as wrong as missing ones.
    folder.write(SINGLE, [&bytes[..], b"x"].concat());
    assert_refused(&folder, SINGLE, &["truncated or damaged"]);
}

/// Where the tensors' data begins.
fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn header_lengths_that_lie() {
    let folder = Folder::with_config("length");
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
fn headers_that_are_no_table_of_tensors() {
    let folder = Folder::with_config("header");
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
    // No tensors at all are well-formed, and not a model.
    for header in ["{}", r#"{"__metadata__":null}"#, r#"{"__metadata__":{}}"#] {
        folder.write(SINGLE, raw(header, b""));
        let error = open(&folder).map(drop).unwrap_err();
        assert_names(&error, &folder, &["missing", "transformer.layers.0"]);
    }
}

#[test]
fn headers_that_lie_about_a_tensor() {
    let folder = Folder::with_config("lies");
    // Every one of them calls the tensor at fault `bad`.
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
        // A gap before it, and an overlap with the tensor before it.
        r#""a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"bad":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}"#,
        r#""a":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"bad":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}"#,
    ];
    for case in cases {
        folder.write(SINGLE, raw(format!("{{{case}}}"), &[0; 8]));
        assert_refused(&folder, SINGLE, &["header is malformed", "`bad`"]);
    }
    // Two tensors of the same bytes: neither is more at fault.
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
fn tensors_of_other_types() {
    let folder = Folder::with_config("types");
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
fn tensors_that_are_missing_extra_or_misshapen() {
    let folder = Folder::with_config("set");
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
    // The same elements, the wrong way round.
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

#[test]
fn indexes_that_are_no_index() {
    let folder = Folder::with_config("index");
    shards(&folder, &tensors(Stored::F16));
    for (text, part) in [
        (&b""[..], "EOF"),
        (b"\xff", "line 1"),
        (b"not json", "line 1"),
        (b"[]", "line 1"),
        (b"{}", "`weight_map`"),
        (br#"{"weight_map":null}"#, "expected a map"),
        (br#"{"weight_map":[]}"#, "expected a map"),
        (br#"{"weight_map":{}}"#, "`weight_map` is empty"),
        (br#"{"weight_map":{"a":1}}"#, "expected a string"),
        (br#"{"weight_map":{"a":null}}"#, "expected a string"),
        (br#"{"weight_map":{"a":"b.safetensors"}} {}"#, "trailing"),
    ] {
        folder.write(INDEX, text);
        assert_refused(&folder, INDEX, &[part]);
    }
    folder.write(INDEX, "[".repeat(100_000));
    assert_refused(&folder, INDEX, &["line 1"]);
    let writer = fs::File::create(folder.join(INDEX)).unwrap();
    writer.set_len(100_000_001).unwrap();
    assert_refused(&folder, INDEX, &["too long"]);
}

#[test]
fn indexes_that_name_other_places() {
    let folder = Folder::with_config("outside");
    let outside = Folder::new("outside-target");
    let tensors = tensors(Stored::F16);
    outside.write("x.safetensors", file(&tensors));
    let absolute = outside.join("x.safetensors");
    let target = outside.file_name().unwrap().to_str().unwrap();
    let relative = format!("../{target}/x.safetensors");
    for place in [
        absolute.to_str().unwrap(),
        &relative,
        "../x",
        "./x.safetensors",
        "a/x.safetensors",
        "x.safetensors/",
        "/",
        "..",
        ".",
        "",
    ] {
        let map = tensors.keys().map(|name| (name.clone(), place.into()));
        folder.write(INDEX, index(&map.collect()));
        assert_refused(&folder, INDEX, &["outside the folder", "`transformer."]);
    }
    // Not found rather than outside.
    for place in [
        "x\0.safetensors",
        "nothing.safetensors",
        "\u{202e}",
        "x y\\z",
    ] {
        let map = tensors.keys().map(|name| (name.clone(), place.into()));
        folder.write(INDEX, index(&map.collect()));
        assert_refused(&folder, place, &["not found", INDEX]);
    }
}

#[test]
fn shards_that_contradict_their_index() {
    let folder = Folder::with_config("shards");
    let tensors = tensors(Stored::F16);
    let map = shards(&folder, &tensors);
    open(&folder).unwrap();
    let [first, second] = ["1", "2"].map(|n| format!("model-0000{n}-of-00003.safetensors"));

    // A shard that is not there.
    let bytes = fs::read(folder.join(&first)).unwrap();
    fs::remove_file(folder.join(&first)).unwrap();
    assert_refused(&folder, &first, &["not found", INDEX]);
    // A shard that is empty, or cut.
    folder.write(&first, "");
    assert_refused(&folder, &first, &["not a safetensors file"]);
    folder.write(&first, &bytes[..bytes.len() - 1]);
    assert_refused(&folder, &first, &["truncated"]);
    folder.write(&first, &bytes);
    open(&folder).unwrap();

    // A shard that the index does not know: its tensors are missing from the model.
    let mut without = map.clone();
    without.retain(|_, shard| *shard != first);
    let lost = map.iter().find(|(_, shard)| **shard == first).unwrap().0;
    folder.write(INDEX, index(&without));
    let error = open(&folder).map(drop).unwrap_err();
    assert_names(&error, &folder, &[lost, "missing"]);

    // A tensor that the index forgot, misplaced, or made up.
    let mut wrong = map.clone();
    wrong.remove(EMBEDDINGS);
    folder.write(INDEX, index(&wrong));
    assert_refused(
        &folder,
        &map[EMBEDDINGS],
        &[EMBEDDINGS, "not listed", INDEX],
    );
    let mut wrong = map.clone();
    let real = wrong.insert(EMBEDDINGS.into(), second.clone()).unwrap();
    assert_ne!(real, second);
    folder.write(INDEX, index(&wrong));
    assert_refused(&folder, &real, &[EMBEDDINGS, INDEX, &second]);
    let mut wrong = map.clone();
    wrong.insert("made.up".into(), second.clone());
    folder.write(INDEX, index(&wrong));
    assert_refused(&folder, &second, &["`made.up` is missing", INDEX]);

    // A tensor in two shards.
    let twice: Tensors = tensors
        .iter()
        .filter(|(name, _)| map[*name] == second || *name == EMBEDDINGS)
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    folder.write(INDEX, index(&map));
    folder.write(&second, file(&twice));
    assert_refused(&folder, &second, &[EMBEDDINGS]);
}

#[test]
fn any_layout_and_type_gives_the_same_logits() {
    let mut expected: Option<Vec<f32>> = None;
    for (stored, dtype) in [
        (Stored::F32, Dtype::Float32),
        (Stored::F16, Dtype::Float16),
        (Stored::BF16, Dtype::Bfloat16),
    ] {
        for sharded in [false, true] {
            let folder = Folder::with_config(&format!("layout-{stored:?}-{sharded}"));
            let tensors = tensors(stored);
            if sharded {
                shards(&folder, &tensors);
                // What the index lists counts, not what else lies there.
                folder.write(SINGLE, "");
            } else {
                folder.write(SINGLE, file(&tensors));
            }
            let checkpoint = Checkpoint::open(&folder).unwrap();
            assert_eq!(checkpoint.dtype(), dtype);
            assert_eq!(checkpoint.tensors().len(), 18);
            assert_eq!(checkpoint.files().len(), if sharded { 3 } else { 1 });
            let elements = tiny().parameter_count() as usize;
            assert_eq!(checkpoint.bytes(), elements * dtype.size());

            // Every type holds the weights exactly, so in float32 nothing may differ.
            let found = logits(&model(&folder, Dtype::Float32).unwrap());
            let expected = expected.get_or_insert_with(|| found.clone());
            assert_eq!(&found, expected);
            let largest = expected.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            assert!(largest > 1.0, "{largest}");

            for (dtype, tolerance) in [(Dtype::Float16, 0.01), (Dtype::Bfloat16, 0.08)] {
                let cast = model(&folder, dtype).unwrap();
                assert_eq!(cast.dtype(), dtype);
                let found = logits(&cast);
                assert_ne!(&found, expected);
                for (a, b) in found.iter().zip(&*expected) {
                    assert!((a - b).abs() < tolerance * largest, "{dtype}: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn the_bytes_read_are_reported() {
    let folder = Folder::with_config("progress");
    shards(&folder, &tensors(Stored::BF16));
    let (config, checkpoint) = open(&folder).unwrap();
    let total = checkpoint.bytes() as u64;
    let mut seen = Vec::new();
    Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |done, of| {
            assert_eq!(of, total);
            seen.push(done);
        },
    )
    .unwrap();
    assert_eq!((seen.len(), seen[0], seen[18]), (19, 0, total));
    assert!(seen.is_sorted());
}

#[test]
fn files_that_change_after_they_were_checked() {
    let folder = Folder::with_config("change");
    let good = file(&tensors(Stored::F16));
    let path = folder.join(SINGLE);
    let mut renamed = tensors(Stored::F16);
    let norm = renamed.remove("transformer.norm.weight").unwrap();
    renamed.insert("transformer.morn.weight".into(), norm);
    let mut swapped = tensors(Stored::F16);
    swapped.get_mut(EMBEDDINGS).unwrap().shape.reverse();
    let other = [
        Vec::new(),
        good[..4].to_vec(),
        good[..header_end(&good) - 1].to_vec(),
        good[..header_end(&good)].to_vec(),
        good[..good.len() - 1].to_vec(),
        file(&renamed),
        file(&swapped),
        file(&tensors(Stored::F32)),
    ];
    for bytes in other {
        folder.write(SINGLE, &good);
        let (config, checkpoint) = open(&folder).unwrap();
        folder.write(SINGLE, &bytes);
        let read = Weights::read(
            &checkpoint,
            &config,
            ReadOptions {
                dtype: Dtype::Float32,
                keep_quantized: false,
            },
            &mut |_, _| {},
        );
        assert_names(&read.map(drop).unwrap_err(), &path, &[]);
    }
    folder.write(SINGLE, &good);
    let (config, checkpoint) = open(&folder).unwrap();
    fs::remove_file(&path).unwrap();
    let error = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |_, _| {},
    )
    .unwrap_err();
    assert_names(&error, &path, &[]);
}

/// The layout of the Hugging Face Hub's cache, links into `blobs` and all.
#[cfg(unix)]
#[test]
fn the_hub_cache_is_followed() {
    let cache = Folder::new("hub");
    let repository = cache.join("models--apple--OpenELM-270M");
    let blobs = repository.join("blobs");
    let [old, new] = ["0a1b2c", "3d4e5f"].map(|hash| repository.join("snapshots").join(hash));
    let refs = repository.join("refs");
    for folder in [&blobs, &old, &new, &refs] {
        fs::create_dir_all(folder).unwrap();
    }
    let main = refs.join("main");
    fs::write(blobs.join("c0ffee"), tiny().to_json()).unwrap();
    fs::write(blobs.join("decade"), file(&tensors(Stored::F16))).unwrap();
    let link = |snapshot: &Path, name: &str, blob: &str| {
        let blob = format!("../../blobs/{blob}");
        std::os::unix::fs::symlink(blob, snapshot.join(name)).unwrap();
    };

    // Not downloaded yet: no snapshot has a model.
    let error = open(&repository).map(drop).unwrap_err();
    assert_names(&error, &repository.join("config.json"), &["not found"]);

    // One snapshot is it, whatever `main` says.
    link(&new, "config.json", "c0ffee");
    link(&new, SINGLE, "decade");
    assert_eq!(model_folder(&repository).unwrap(), new);
    fs::write(&main, "3d4e5f").unwrap();
    assert_eq!(model_folder(&repository).unwrap(), new);
    fs::write(&main, "ffffff").unwrap();
    assert_eq!(model_folder(&repository).unwrap(), new);
    let found = logits(&model(&repository, Dtype::Float32).unwrap());
    assert_eq!(found, logits(&model(&new, Dtype::Float32).unwrap()));

    // Of several `main` decides.
    link(&old, "config.json", "c0ffee");
    link(&old, SINGLE, "decade");
    for (commit, snapshot) in [("0a1b2c", &old), ("3d4e5f\n", &new)] {
        fs::write(&main, commit).unwrap();
        assert_eq!(model_folder(&repository).unwrap(), *snapshot);
    }
    for commit in ["ffffff", "", "\0", "\u{fffd}"] {
        fs::write(&main, commit).unwrap();
        let error = open(&repository).map(drop).unwrap_err();
        assert_names(&error, &main, &["several snapshots"]);
    }
    fs::remove_file(&main).unwrap();
    let error = open(&repository).map(drop).unwrap_err();
    assert_names(&error, &main, &["several snapshots"]);
    open(&old).unwrap();

    // A blob whose download was cut off leaves a link to nothing.
    fs::remove_file(blobs.join("decade")).unwrap();
    let error = open(&old).map(drop).unwrap_err();
    assert_names(&error, &old, &[SINGLE]);
}

/// Paths that MLX's C interface cannot take, and mapping needs none of it.
#[cfg(target_os = "linux")]
#[test]
fn folders_whose_names_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let outer = Folder::new("utf8");
    let folder = outer.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), tiny().to_json()).unwrap();
    fs::write(folder.join(SINGLE), file(&tensors(Stored::F16))).unwrap();
    model(&folder, Dtype::Float32).unwrap();
}

#[test]
fn language_models_say_what_their_folder_lacks() {
    let tales = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tales");
    let folder = Folder::with_config("language");
    folder.write(SINGLE, file(&tensors(Stored::F16)));
    let load = || LanguageModel::load(&folder, &LoadOptions::default());

    let error = load().map(drop).unwrap_err();
    let parts = [
        "tokenizer.json or tokenizer.model",
        "meta-llama/Llama-2-7b-hf",
    ];
    assert_names(&error, &folder, &parts);
    let elsewhere = LoadOptions {
        tokenizer: Some(folder.join("nowhere")),
        ..LoadOptions::default()
    };
    let error = LanguageModel::load(&folder, &elsewhere)
        .map(drop)
        .unwrap_err();
    assert_names(&error, &folder.join("nowhere"), &parts);

    // 2,048 ids for a model of 32.
    let tokenizer = folder.join("tokenizer.json");
    fs::copy(tales.join("tokenizer.json"), &tokenizer).unwrap();
    let error = load().map(drop).unwrap_err();
    assert_names(&error, &tokenizer, &["2048", "32"]);
    fs::write(&tokenizer, "").unwrap();
    assert_names(&load().map(drop).unwrap_err(), &tokenizer, &["empty"]);
    fs::write(&tokenizer, "{").unwrap();
    assert_names(&load().map(drop).unwrap_err(), &tokenizer, &[]);

    // Weights at fault are told before the tokenizer.
    folder.write(SINGLE, "");
    let error = load().map(drop).unwrap_err();
    assert_names(&error, &folder.join(SINGLE), &["not a safetensors file"]);
    let mut config: serde_json::Value = serde_json::from_str(&tiny().to_json()).unwrap();
    folder.write(SINGLE, file(&tensors(Stored::F16)));
    config["quantization"] = serde_json::json!({ "group_size": 64, "bits": 7 });
    folder.write("config.json", config.to_string());
    let error = load().map(drop).unwrap_err();
    assert_names(
        &error,
        Path::new("config.json"),
        &["`quantization`", "found 7"],
    );
}

/// Opens a spoilt folder; if it is still a model, computes with it. Whether it was.
fn survives(folder: &Folder) -> bool {
    let Ok((config, checkpoint)) = open(folder) else {
        return false;
    };
    let Ok(weights) = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |_, _| {},
    ) else {
        return true;
    };
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    // Any weights give logits, be they NaN, and any logits give tokens of the vocabulary.
    logits(&model);
    for temperature in [0.0, 1.0] {
        let options = GenerateOptions {
            max_tokens: 3,
            logprobs: 2,
            ignore_eos: true,
            sampling: Sampling {
                temperature,
                top_k: 8,
                top_p: 0.9,
                seed: Some(1),
                ..Sampling::default()
            },
            ..GenerateOptions::default()
        };
        for event in Generation::new(&model, None, vec![1, 5, 9], options).unwrap() {
            if let Event::Token(token) = event.unwrap() {
                assert!(token.id < 32, "{}", token.id);
            }
        }
    }
    true
}

/// A few bytes replaced, bits flipped, dropped or doubled, between `from` and `to`.
fn spoil(bytes: &mut Vec<u8>, from: usize, to: usize, random: &mut Random) {
    const JSON: &[u8] = b"{}[]\",:0123456789-.eEF\\ntrul";
    for _ in 0..=random.below(3) {
        let place = from + random.below(to.min(bytes.len()) - from);
        match random.below(8) {
            0..3 => bytes[place] ^= 1 << random.below(8),
            3..5 => bytes[place] = JSON[random.below(JSON.len())],
            5 => bytes[place] = random.next() as u8,
            6 => drop(bytes.remove(place)),
            _ => bytes.insert(place, bytes[place]),
        }
    }
}

#[test]
fn spoilt_weight_files() {
    let folder = Folder::with_config("spoilt-weights");
    let good = file(&tensors(Stored::F16));
    let header = header_end(&good);
    let mut random = Random(4);
    let (mut models, mut errors) = (0, 0);
    for case in 0..4_000 {
        let mut bytes = good.clone();
        match case % 20 {
            // Nothing checks the data: these are models, of NaN and infinity too.
            0 => {
                for _ in 0..200 {
                    let place = header + random.below(bytes.len() - header);
                    bytes[place] = random.next() as u8;
                }
            }
            1..4 => spoil(&mut bytes, 0, 8, &mut random),
            _ => spoil(&mut bytes, 8, header, &mut random),
        }
        folder.write(SINGLE, &bytes);
        match survives(&folder) {
            true => models += 1,
            false => errors += 1,
        }
    }
    // Both ways out have to be taken often, or the cases test nothing.
    assert!(models > 200 && errors > 2_000, "{models}, {errors}");
}

#[test]
fn spoilt_indexes() {
    let folder = Folder::with_config("spoilt-index");
    let map = shards(&folder, &tensors(Stored::F16));
    let good = index(&map).into_bytes();
    let mut random = Random(5);
    let (mut models, mut errors) = (0, 0);
    for _ in 0..4_000 {
        let mut bytes = good.clone();
        let length = bytes.len();
        spoil(&mut bytes, 0, length, &mut random);
        folder.write(INDEX, &bytes);
        match survives(&folder) {
            true => models += 1,
            false => errors += 1,
        }
    }
    assert!(models > 10 && errors > 2_000, "{models}, {errors}");
}

#[test]
fn spoilt_shards() {
    let folder = Folder::with_config("spoilt-shards");
    shards(&folder, &tensors(Stored::BF16));
    let path = folder.join("model-00002-of-00003.safetensors");
    let good = fs::read(&path).unwrap();
    let mut random = Random(6);
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        spoil(&mut bytes, 0, header_end(&good), &mut random);
        fs::write(&path, &bytes).unwrap();
        survives(&folder);
    }
}
