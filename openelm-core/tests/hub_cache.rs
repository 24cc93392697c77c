//! Models, tokenizers and adapters in the Hugging Face Hub cache.

#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use openelm_core::{
    CancelHandle, Config, Error, ErrorKind, LanguageModel, LoadOptions, Tokenizer,
    adapter::{Adapter, AdapterOptions},
    convert::{ConvertOptions, TokenizerChoice, convert},
    weights::{Checkpoint, model_folder},
};
use openelm_testing::{TempDir, tales};

/// A cache with tales' model in one repository and its tokenizer in another.
struct Cache {
    root: TempDir,
    model: PathBuf,
    tokenizer: PathBuf,
}

impl Cache {
    fn new() -> Self {
        let root = TempDir::new();
        let files = ["config.json", "model.safetensors"].map(|name| tales().join(name));
        let model = add(&root, "models--apple--OpenELM-tales", &files);
        let files = [tales().join("tokenizer.json")];
        let tokenizer = add(&root, "models--meta-llama--Llama", &files);
        Self {
            root,
            model,
            tokenizer,
        }
    }
}

/// A repository as `hf download` writes it: blobs, and a snapshot of links to them.
fn add(root: &Path, name: &str, files: &[PathBuf]) -> PathBuf {
    let repository = root.join(name);
    let (blobs, snapshot) = (
        repository.join("blobs"),
        repository.join("snapshots/0a1b2c"),
    );
    for folder in [&blobs, &snapshot, &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), "0a1b2c").unwrap();
    for (index, file) in files.iter().enumerate() {
        let blob = blobs.join(index.to_string());
        fs::copy(file, &blob).unwrap();
        let target = Path::new("../../blobs").join(index.to_string());
        symlink(target, snapshot.join(file.file_name().unwrap())).unwrap();
    }
    repository
}

#[test]
fn every_path_of_a_model_or_tokenizer_may_be_a_repository() {
    let cache = Cache::new();
    let snapshot = cache.model.join("snapshots/0a1b2c");
    let link = cache.root.join("link");
    symlink(&cache.model, &link).unwrap();
    let expected = fs::canonicalize(&snapshot).unwrap();
    for path in [&cache.model, &snapshot, &link] {
        let found = fs::canonicalize(model_folder(path).unwrap()).unwrap();
        assert_eq!(found, expected);
        Config::load(path).unwrap();
        Checkpoint::open(path).unwrap();
        let options = LoadOptions {
            tokenizer: Some(cache.tokenizer.clone()),
            ..LoadOptions::default()
        };
        let model = LanguageModel::load(path, &options).unwrap();
        assert_eq!(model.tokenizer().vocab_size(), 2048);
    }
    let snapshot = cache.tokenizer.join("snapshots/0a1b2c");
    let file = snapshot.join("tokenizer.json");
    for path in [&cache.tokenizer, &snapshot, &file] {
        let tokenizer = Tokenizer::find(&cache.model, Some(path)).unwrap();
        assert_eq!(tokenizer.path(), file);
    }
    assert_eq!(Tokenizer::locate(&cache.tokenizer).unwrap(), snapshot);
    assert_eq!(Tokenizer::locate(&file).unwrap(), file);
}

#[test]
fn a_conversion_takes_model_tokenizer_and_adapter_from_the_cache() {
    let cache = Cache::new();
    let options = LoadOptions {
        tokenizer: Some(cache.tokenizer.clone()),
        ..LoadOptions::default()
    };
    let model = LanguageModel::load(&cache.model, &options).unwrap();
    let adapter = Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
    let saved = cache.root.join("saved");
    adapter.save(&saved, model.model().config()).unwrap();
    let files = ["adapters.safetensors", "adapter_config.json"].map(|name| saved.join(name));
    let adapter = add(&cache.root, "models--user--adapter", &files);

    let target = cache.root.join("fused");
    let options = ConvertOptions {
        adapter: Some(Adapter::load(&adapter).unwrap()),
        tokenizer: TokenizerChoice::Path(cache.tokenizer.clone()),
        verify: false,
        ..ConvertOptions::default()
    };
    let cancel = CancelHandle::default();
    convert(&cache.model, &target, &options, &cancel, |_| {}).unwrap();
    let copied = fs::read(target.join("tokenizer.json")).unwrap();
    assert!(copied == fs::read(tales().join("tokenizer.json")).unwrap());
    LanguageModel::load(&target, &LoadOptions::default()).unwrap();
}

#[test]
fn a_cache_is_no_repository() {
    let cache = Cache::new();
    let outer = TempDir::new();
    symlink(&*cache.root, outer.join("hub")).unwrap();
    for (path, example) in [
        (&*cache.root, "`models--apple--OpenELM-tales`"),
        (&*outer, "`hub/models--apple--OpenELM-tales`"),
    ] {
        for error in [
            model_folder(path).map(drop).unwrap_err(),
            Tokenizer::find(path, Some(path)).map(drop).unwrap_err(),
            Adapter::load(path).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.path(), Some(path));
            let text = error.to_string();
            assert!(text.contains("a cache of the Hugging Face Hub"), "{text}");
            assert!(text.contains(example), "{text}");
        }
    }
}

#[test]
fn a_path_that_does_not_exist_may_be_a_repository_of_the_hub() {
    type Read = fn(&Path) -> Error;
    let readers: [Read; 4] = [
        |path| model_folder(path).map(drop).unwrap_err(),
        |path| Tokenizer::find(path, Some(path)).map(drop).unwrap_err(),
        |path| Adapter::load(path).map(drop).unwrap_err(),
        |path| {
            let (options, cancel) = (ConvertOptions::default(), CancelHandle::default());
            let target = TempDir::new().join("x");
            let converted = convert(path, target, &options, &cancel, |_| {});
            converted.map(drop).unwrap_err()
        },
    ];
    for read in readers {
        for (path, is_repository) in [
            ("apple/OpenELM-270M", true),
            ("nowhere", false),
            ("./a/b", false),
            ("/nowhere/b", false),
            ("a/b/c", false),
            ("a/b c", false),
        ] {
            let error = read(path.as_ref());
            assert_eq!(error.kind(), ErrorKind::MissingFile, "{error}");
            assert_eq!(error.path(), Some(path.as_ref()));
            let text = error.to_string();
            assert!(text.contains("no such file or folder; expected "), "{text}");
            assert_eq!(text.contains("download it first"), is_repository, "{text}");
        }
    }
}

/// A folder that cannot be examined is not a missing one. Root may read all folders, so the tests
/// use links and names that no one can follow.
#[test]
fn a_path_that_cannot_be_read_is_not_missing() {
    let folder = TempDir::new();
    let file = folder.write("file", "");
    for name in [
        "loop",
        "config.json",
        "tokenizer.json",
        "adapters.safetensors",
    ] {
        symlink(name, folder.join(name)).unwrap();
    }
    let long = folder.join("x".repeat(300));
    for path in [folder.join("loop"), file.join("inside"), long] {
        for error in [
            model_folder(&path).map(drop).unwrap_err(),
            Tokenizer::find(&path, Some(&path)).map(drop).unwrap_err(),
            Adapter::load(&path).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(error.path(), Some(&*path));
        }
    }
    for (error, name) in [
        (model_folder(&folder).map(drop), "config.json"),
        (Tokenizer::find(&folder, None).map(drop), "tokenizer.json"),
        (Adapter::load(&folder).map(drop), "adapters.safetensors"),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert_eq!(error.path(), Some(&*folder.join(name)));
    }
}
