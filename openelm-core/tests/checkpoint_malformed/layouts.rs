//! Incomplete folders and folder layouts.

use std::{fs, path::Path};

use openelm_core::{
    Dtype, LanguageModel, LoadOptions,
    internal::{ReadOptions, Weights},
    weights::{Checkpoint, model_folder},
};
use openelm_testing::{TempDir, tales};
use safetensors::Dtype as Stored;

use crate::folders::{
    EMBEDDINGS, INDEX, SINGLE, assert_names, assert_refused, file, header_end, logits, model, open,
    shards, tensors, tiny, with_config,
};

#[test]
fn rejects_empty_and_incomplete_folders() {
    let folder = TempDir::new();
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
    assert_names(&error, &file, &["this is a file", "model folder"]);
    // A folder in place of a file.
    fs::create_dir(folder.join(SINGLE)).unwrap();
    let error = open(&folder).map(drop).unwrap_err();
    assert_names(&error, &folder, &[SINGLE]);
}

#[test]
fn layouts_and_dtypes_give_the_same_logits() {
    let mut expected: Option<Vec<f32>> = None;
    for (stored, dtype) in [
        (Stored::F32, Dtype::Float32),
        (Stored::F16, Dtype::Float16),
        (Stored::BF16, Dtype::Bfloat16),
    ] {
        for sharded in [false, true] {
            let folder = with_config();
            let tensors = tensors(stored);
            if sharded {
                shards(&folder, &tensors);
                // Only files in the index are read.
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

            // All dtypes hold the weights exactly, so float32 logits are equal.
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
fn reports_bytes_read() {
    let folder = with_config();
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
fn detects_files_changed_after_the_check() {
    let folder = with_config();
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

/// The layout of the Hugging Face Hub cache, with links into `blobs`.
#[cfg(unix)]
#[test]
fn reads_the_hub_cache() {
    let cache = TempDir::new();
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

    // Incomplete download: no snapshot has a model.
    let error = open(&repository).map(drop).unwrap_err();
    assert_names(&error, &repository.join("config.json"), &["not found"]);

    // A single complete snapshot is used, whatever `main` refers to.
    link(&new, "config.json", "c0ffee");
    link(&new, SINGLE, "decade");
    assert_eq!(model_folder(&repository).unwrap(), new);
    fs::write(&main, "3d4e5f").unwrap();
    assert_eq!(model_folder(&repository).unwrap(), new);
    fs::write(&main, "ffffff").unwrap();
    assert_eq!(model_folder(&repository).unwrap(), new);
    let found = logits(&model(&repository, Dtype::Float32).unwrap());
    assert_eq!(found, logits(&model(&new, Dtype::Float32).unwrap()));

    // With several snapshots `main` decides.
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

    // A blob with an incomplete download leaves a dangling link.
    fs::remove_file(blobs.join("decade")).unwrap();
    let error = open(&old).map(drop).unwrap_err();
    assert_names(&error, &old.join(SINGLE), &["a link to", "does not exist"]);
}

/// Paths that MLX's C interface does not accept; memory mapping does not use it.
#[cfg(target_os = "linux")]
#[test]
fn reads_folders_with_names_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let outer = TempDir::new();
    let folder = outer.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), tiny().to_json()).unwrap();
    fs::write(folder.join(SINGLE), file(&tensors(Stored::F16))).unwrap();
    model(&folder, Dtype::Float32).unwrap();
}

#[test]
fn language_model_names_missing_files() {
    let tales = tales();
    let folder = with_config();
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
    let parts = [
        "no such file or folder",
        "tokenizer.json or tokenizer.model",
    ];
    assert_names(&error, &folder.join("nowhere"), &parts);

    // 2,048 ids for a model of 32.
    let tokenizer = folder.join("tokenizer.json");
    fs::copy(tales.join("tokenizer.json"), &tokenizer).unwrap();
    let loaded = load().unwrap();
    let warning = loaded.warnings().concat();
    assert!(
        warning.contains("has 2048 ids, the model's vocabulary 32;"),
        "{warning}"
    );
    let error = loaded.tokenizer().encode_prompt("Once").unwrap_err();
    assert_names(&error, &tokenizer, &["token `", "32 ids"]);
    fs::write(&tokenizer, "").unwrap();
    assert_names(&load().map(drop).unwrap_err(), &tokenizer, &["empty"]);
    fs::write(&tokenizer, "{").unwrap();
    assert_names(&load().map(drop).unwrap_err(), &tokenizer, &[]);

    // Invalid weights are reported before the tokenizer.
    folder.write(SINGLE, "");
    let error = load().map(drop).unwrap_err();
    assert_names(&error, &folder.join(SINGLE), &["not a safetensors file"]);
    let mut config: serde_json::Value = serde_json::from_str(&tiny().to_json()).unwrap();
    folder.write(SINGLE, file(&tensors(Stored::F16)));
    config["quantization"] = serde_json::json!({ "group_size": 64, "bits": 7 });
    folder.write("config.json", config.to_string());
    let error = load().map(drop).unwrap_err();
    let parts = ["`quantization`", "found 7"];
    assert_names(&error, &folder.join("config.json"), &parts);
}
