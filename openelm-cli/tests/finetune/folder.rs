//! A scratch folder with data, and the files of a run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use openelm_testing::{TempDir, tales};

/// A folder that is removed on drop.
pub(crate) struct Scratch(pub(crate) TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new();
        let rows = |from: usize, count: usize| -> String {
            let row = |i: usize| {
                let name = ["fox", "king", "miller", "witch", "bear"][i % 5];
                format!(
                    "{{\"text\": \"The {name} had {i} apples{}.\"}}\n",
                    " and pears".repeat(i % 7)
                )
            };
            (from..from + count).map(row).collect()
        };
        folder.write("train.jsonl", rows(0, 30));
        folder.write("valid.jsonl", rows(30, 6));
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `openelm finetune` on the folder's data into `adapters`, with `more` options.
    pub(crate) fn finetune(&self, adapters: &str, more: &[&str]) -> Command {
        let mut command = openelm(&[
            "finetune",
            "--scale",
            "2",
            "--model",
            tales().to_str().unwrap(),
            "--data",
        ]);
        command
            .arg(&*self.0)
            .arg("--adapter-path")
            .arg(self.path(adapters))
            .args(more);
        command
    }
}

pub(crate) fn openelm(args: &[&str]) -> Command {
    openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), args)
}

pub(crate) const RUN: [&str; 19] = [
    "--iters",
    "24",
    "--batch-size",
    "3",
    "--learning-rate",
    "2e-3",
    "--lr-schedule",
    "cosine",
    "--dropout",
    "0.1",
    "--grad-accumulation-steps",
    "2",
    "--clip-norm",
    "1",
    "--steps-per-eval",
    "6",
    "--save-every",
    "1",
    "--quiet",
];

/// The files that must not depend on interruptions of the run.
pub(crate) fn results(adapters: &Path) -> Vec<(String, Vec<u8>)> {
    let files = [
        "adapters.safetensors",
        "adapter_config.json",
        "training_state.safetensors",
        "best/adapters.safetensors",
    ];
    let read = |name: &str| {
        let bytes = fs::read(adapters.join(name));
        (
            name.to_owned(),
            bytes.unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    files.into_iter().map(read).collect()
}
