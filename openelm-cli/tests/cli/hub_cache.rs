//! Options that take a folder of the Hugging Face Hub cache.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use openelm_testing::{TempDir, works};

use crate::tool::{openelm, tales};

/// A repository of the cache with links to `files` of `folder`.
fn repository(cache: &TempDir, name: &str, folder: &Path, files: &[&str]) -> String {
    let repository = cache.join(format!("models--{name}"));
    let snapshot = repository.join("snapshots").join("0a1b2c");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0a1b2c").unwrap();
    for file in files {
        symlink(folder.join(file), snapshot.join(file)).unwrap();
    }
    repository.to_str().unwrap().to_owned()
}

#[test]
fn every_command_takes_models_tokenizers_and_adapters_of_the_cache() {
    let (cache, out) = (TempDir::new(), TempDir::new());
    let tales = PathBuf::from(tales());
    let model = repository(
        &cache,
        "a--m",
        &tales,
        &["config.json", "model.safetensors"],
    );
    let tokenizer = repository(&cache, "a--t", &tales, &["tokenizer.json"]);
    let (model, tokenizer) = (model.as_str(), tokenizer.as_str());
    let data = out.file(
        "train.jsonl",
        "{\"text\": \"Once upon a time\"}\n".repeat(8),
    );
    let trained = out.at("trained");
    let run = ["--iters", "1", "--batch-size", "1", "-q", "--data", &data];
    let of = |command: &'static str| vec![command, "-m", model, "--tokenizer", tokenizer];
    let finetune = [
        of("finetune"),
        run.to_vec(),
        vec!["--adapter-path", &trained],
    ]
    .concat();
    works(openelm(&finetune));
    let files = ["adapters.safetensors", "adapter_config.json"];
    let adapter = repository(&cache, "a--a", trained.as_ref(), &files);
    let adapter = adapter.as_str();

    let again = out.at("again");
    let more = ["--start-from", adapter, "--adapter-path", &again];
    works(openelm(&[&of("finetune")[..], &run, &more].concat()));
    let prompt = ["-p", "Once", "-n", "2", "-q", "--adapter"];
    for adapter in [adapter, &format!("{adapter}=0.5")] {
        works(openelm(
            &[&of("generate")[..], &prompt, &[adapter]].concat(),
        ));
    }
    let fused = out.at("fused");
    let more = ["-q", "--adapter-path", adapter, "--save-path", &fused];
    works(openelm(&[&of("fuse")[..], &more].concat()));
    let converted = out.at("converted");
    let convert = ["convert", model, &converted, "--quiet", "--verify", "none"];
    works(openelm(
        &[&convert[..], &["--tokenizer", tokenizer]].concat(),
    ));
    works(openelm(&["info", model]));
    works(openelm(&[
        "bench",
        "-m",
        model,
        "-n",
        "2",
        "--repeat",
        "1",
        "--prompt-tokens",
        "2",
    ]));
    let pretrained = out.at("pretrained");
    let pretrain = [
        "pretrain",
        "--start-from",
        model,
        "--tokenizer",
        tokenizer,
        "-o",
        &pretrained,
    ];
    let short = [
        "--max-seq-length",
        "16",
        "--micro-batch-size",
        "1",
        "--learning-rate",
        "1e-3",
    ];
    works(openelm(&[&pretrain[..], &run, &short].concat()));
    assert!(
        Path::new(&pretrained)
            .join("model/tokenizer.json")
            .is_file()
    );
}
