//! Shards and their index.

use std::fs;

use openelm_core::weights::Checkpoint;
use openelm_testing::TempDir;
use safetensors::Dtype as Stored;

use crate::folders::{
    EMBEDDINGS, INDEX, SINGLE, Tensor, Tensors, assert_names, assert_refused, file, index, open,
    shards, tensors, tiny, with_config,
};

#[test]
fn rejects_malformed_indexes() {
    let folder = with_config();
    shards(&folder, &tensors(Stored::F16));
    for (text, part) in [
        (&b""[..], "EOF"),
        (b"\xff", "not UTF-8 text: byte 0"),
        (b"not json", "line 1"),
        (b"[]", "expected struct Index"),
        (b"{}", "`weight_map`"),
        (br#"{"weight_map":null}"#, "missing field `weight_map`"),
        (br#"{"weight_map":[]}"#, "expected a map"),
        (br#"{"weight_map":{}}"#, "`weight_map` is empty"),
        (br#"{"weight_map":{"a":1}}"#, "expected a string"),
        (br#"{"weight_map":{"a":null}}"#, "`weight_map` is empty"),
        (br#"{"weight_map":{"a":"b.safetensors"}} {}"#, "trailing"),
    ] {
        folder.write(INDEX, text);
        assert_refused(&folder, INDEX, &[part]);
    }
    folder.write(INDEX, "[".repeat(100_000));
    assert_refused(&folder, INDEX, &["line 1"]);
    let writer = fs::File::create(folder.join(INDEX)).unwrap();
    writer.set_len(100_000_001).unwrap();
    assert_refused(
        &folder,
        INDEX,
        &["expected at most 100000000 bytes, found 100000001"],
    );
}

#[test]
fn rejects_paths_outside_the_folder() {
    let folder = with_config();
    let outside = TempDir::new();
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
    // Missing, not outside the folder.
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
fn rejects_shards_that_contradict_the_index() {
    let folder = with_config();
    let tensors = tensors(Stored::F16);
    let map = shards(&folder, &tensors);
    open(&folder).unwrap();
    let [first, second] = ["1", "2"].map(|n| format!("model-0000{n}-of-00003.safetensors"));

    // A missing shard.
    let bytes = fs::read(folder.join(&first)).unwrap();
    fs::remove_file(folder.join(&first)).unwrap();
    assert_refused(&folder, &first, &["not found", INDEX]);
    // An empty or truncated shard.
    folder.write(&first, "");
    assert_refused(&folder, &first, &["not a safetensors file"]);
    folder.write(&first, &bytes[..bytes.len() - 1]);
    assert_refused(&folder, &first, &["truncated"]);
    folder.write(&first, &bytes);
    open(&folder).unwrap();

    // A shard missing from the index: its tensors are missing from the model.
    let mut without = map.clone();
    without.retain(|_, shard| *shard != first);
    let lost = map.iter().find(|(_, shard)| **shard == first).unwrap().0;
    folder.write(INDEX, index(&without));
    let error = open(&folder).map(drop).unwrap_err();
    assert_names(&error, &folder, &[lost, "missing"]);

    // A tensor that the index omits, assigns to the wrong shard, or invents.
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
fn whole_file_beside_an_outdated_index_is_read() {
    let all = tensors(Stored::F16);
    let folder = with_config();
    shards(&folder, &all);
    let shard = Checkpoint::open(&folder).unwrap().files()[1].clone();
    fs::remove_file(&shard).unwrap();
    let lost = shard.file_name().unwrap().to_str().unwrap().to_owned();
    assert_refused(&folder, &lost, &["not found", INDEX]);
    // A file without all of the tensors is not the checkpoint.
    let part: Tensors = all.clone().into_iter().take(3).collect();
    folder.write(SINGLE, file(&part));
    assert_refused(&folder, &lost, &["not found", INDEX]);
    folder.write(SINGLE, file(&all));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.files(), [folder.join(SINGLE)]);
    checkpoint.check(&tiny()).unwrap();
}

#[test]
fn shards_without_an_index_are_read() {
    let folder = with_config();
    shards(&folder, &tensors(Stored::F16));
    fs::remove_file(folder.join(INDEX)).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.files().len(), 3);
    checkpoint.check(&tiny()).unwrap();
}

#[test]
fn rotary_frequencies_of_the_configuration_are_ignored() {
    let config = tiny();
    let count = config.head_dim() / 2;
    let frequencies = |base: f64| -> Vec<u8> {
        let value = |i: usize| base.powf(-2.0 * i as f64 / config.head_dim() as f64) as f32;
        (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
    };
    let name = "transformer.layers.0.attn.pos_embedding.inv_freq";
    let tensor = |shape, data| Tensor {
        dtype: Stored::F32,
        shape,
        data,
    };
    let with = |base: f64, shape: Vec<usize>| {
        let folder = with_config();
        let mut all = tensors(Stored::F16);
        all.insert(name.into(), tensor(shape, frequencies(base)));
        folder.write(SINGLE, file(&all));
        folder
    };
    let folder = with(config.rope_freq_constant(), vec![count]);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    checkpoint.check(&config).unwrap();
    assert!(!checkpoint.tensors().contains_key(name));
    open(&folder).unwrap();
    let folder = with(500_000.0, vec![count]);
    assert_refused(&folder, SINGLE, &[name, "rope_freq_constant 10000 gives"]);
    let folder = with_config();
    let mut all = tensors(Stored::F16);
    all.insert(name.into(), tensor(vec![1], vec![0; 4]));
    folder.write(SINGLE, file(&all));
    assert_refused(&folder, SINGLE, &[name, "shape"]);
}
