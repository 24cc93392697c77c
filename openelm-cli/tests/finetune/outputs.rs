//! Outputs beside files of the user and of other programs.

use std::fs;

use openelm_testing::{assert_one_line, failure, success, tales};

use crate::folder::{Scratch, openelm};

const SHORT: [&str; 5] = ["--iters", "1", "--quiet", "--batch-size", "1"];

#[test]
fn adapters_of_other_programs_stay() {
    let scratch = Scratch::new();
    for (folder, files) in [
        ("mlx-lm", ["adapters.safetensors", "adapter_config.json"]),
        ("peft", ["adapter_model.safetensors", "adapter_config.json"]),
        ("model", ["model.safetensors", "config.json"]),
        ("plots", ["loss.svg", "metrics.jsonl"]),
    ] {
        for file in files {
            scratch.0.write(&format!("{folder}/{file}"), "theirs");
        }
        let stderr = failure(scratch.finetune(folder, &SHORT), 1);
        assert_one_line(&stderr, &["which is not of a run: choose another folder"]);
        let found = scratch.0.files(folder);
        assert!(found.values().all(|bytes| bytes == b"theirs") && found.len() == 2);
    }
}

#[test]
fn outputs_contain_no_input() {
    let scratch = Scratch::new();
    success(scratch.finetune("run/adapters", &SHORT));
    let adapters = scratch.0.at("run/adapters");
    let weights = || fs::read(scratch.path("run/adapters/adapters.safetensors")).unwrap();
    let before = weights();
    let config = scratch.0.file("run/lora.toml", "iters = 1\n");
    let model = tales().to_str().unwrap().to_owned();
    let run = scratch.0.at("run");
    for (more, input) in [
        (["--start-from", adapters.as_str()], "--start-from"),
        (["--config", config.as_str()], "--config"),
        (["--data", adapters.as_str()], "--data"),
    ] {
        // A later --data replaces the scratch folder's.
        let mut command = openelm(&["finetune", "--model", &model, "--adapter-path", &run]);
        if input != "--data" {
            command.arg("--data").arg(&*scratch.0);
        }
        command.args(more).args(&SHORT[..3]);
        let stderr = failure(command, 1);
        assert_one_line(&stderr, &["run: contains an input", input]);
    }
    for save_path in ["run", "run/../run", "run/adapters"] {
        let path = scratch.0.at(save_path);
        let fuse = ["fuse", "--model", &model, "--adapter-path", &adapters];
        let mut command = openelm(&[&fuse[..], &["--save-path", &path, "--force"]].concat());
        command.arg("--quiet");
        let stderr = failure(command, 1);
        assert_one_line(&stderr, &["an input of this command (adapter "]);
    }
    assert!(weights() == before);
    // An output inside an input.
    let inside = scratch.0.at("run/adapters/fused");
    let fuse = [
        "fuse",
        "--model",
        &model,
        "--adapter-path",
        &adapters,
        "--save-path",
        &inside,
    ];
    success(openelm(&fuse));
}

#[test]
fn failed_run_leaves_nothing() {
    let scratch = Scratch::new();
    let before = scratch.0.names();
    // Not even the lock file can be written.
    let script = "ulimit -f 0; exec \"$@\"";
    let run = scratch.finetune("a/b", &SHORT);
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", script, "bash"])
        .arg(run.get_program())
        .args(run.get_args());
    let stderr = failure(command, 1);
    assert_one_line(&stderr, &["File too large"]);
    assert_eq!(scratch.0.names(), before);
}

#[cfg(unix)]
#[test]
fn files_have_the_permissions_of_the_user() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    success(scratch.finetune("run", &SHORT));
    fs::write(scratch.path("plain"), "").unwrap();
    let mode = |name: &str| {
        let found = fs::metadata(scratch.path(name)).unwrap();
        found.permissions().mode()
    };
    let best = ["best/adapters.safetensors", "best/adapter_config.json"];
    let names = [
        "adapters.safetensors",
        "adapter_config.json",
        "training_state.safetensors",
    ];
    for name in names
        .iter()
        .chain(&best)
        .chain(&["metrics.jsonl", "loss.png", "run.lock"])
    {
        assert_eq!(mode(&format!("run/{name}")), mode("plain"), "{name}");
    }
}
