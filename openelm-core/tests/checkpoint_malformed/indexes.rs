//! Shards and their index.

use std::fs;

use openelm_testing::TempDir;
use safetensors::Dtype as Stored;

use crate::folders::{
    EMBEDDINGS, INDEX, Tensors, assert_names, assert_refused, file, index, open, shards, tensors,
    with_config,
};

#[test]
fn rejects_malformed_indexes() {
    let folder = with_config();
    shards(&folder, &tensors(Stored::F16));
    for (text, part) in [
        (&b""[..], "EOF"),
        (b"\xff", "not UTF-8 text: byte 0"),
        (b"not json", "line 1"),
        (b"[]", "line 1"),
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
