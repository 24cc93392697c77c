//! Targets of conversions: kept, replaced, refused, after a kill.

use super::*;
use openelm_testing::TempDir;

/// A folder that contains `source`.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let folder = TempDir::new();
        fs::create_dir(folder.join("source")).unwrap();
        Self(folder)
    }

    fn begin(&self, target: &str, force: bool) -> Result<Staging> {
        let kind = if target.ends_with(".gguf") {
            Kind::Gguf
        } else {
            Kind::Folder
        };
        Staging::begin(&self.0.join("source"), &self.0.join(target), kind, force)
    }
}

/// The `config.json` of a model.
fn config(name: &str) -> String {
    format!(r#"{{"model_type": "{name}"}}"#)
}

#[test]
fn keeps_complete_results_only() {
    let scratch = Scratch::new();
    let staging = scratch.begin("model", false).unwrap();
    fs::write(staging.written().join("config.json"), config("1")).unwrap();
    drop(staging);
    assert_eq!(scratch.0.names(), ["source"]);

    let staging = scratch.begin("model", false).unwrap();
    fs::write(staging.written().join("config.json"), config("2")).unwrap();
    staging.keep().unwrap();
    assert_eq!(scratch.0.names(), ["model", "source"]);
    let written = || fs::read_to_string(scratch.0.join("model/config.json")).unwrap();
    assert_eq!(written(), config("2"));

    let staging = scratch.begin("model", true).unwrap();
    fs::write(staging.written().join("config.json"), config("3")).unwrap();
    assert_eq!(written(), config("2"));
    staging.keep().unwrap();
    assert_eq!((written(), scratch.0.names().len()), (config("3"), 2));

    let staging = scratch.begin("model.gguf", false).unwrap();
    fs::write(staging.written(), "4").unwrap();
    staging.keep().unwrap();
    assert_eq!(scratch.0.names(), ["model", "model.gguf", "source"]);
}

#[test]
fn removes_leftovers_of_killed_run() {
    let scratch = Scratch::new();
    let partial = ".model.openelm-partial";
    scratch.0.write(&format!("{partial}/model/sub/a"), "");
    scratch
        .0
        .write(&format!("{partial}/model/model.safetensors"), "half");
    // Of version 0.1.
    scratch
        .0
        .write(".model.replaced/config.json", config("old"));
    let message = scratch.begin("model", false).err().unwrap().to_string();
    assert!(
        message.contains("exists, and replacing it was not requested"),
        "{message}"
    );
    let staging = scratch.begin("model", true).unwrap();
    assert_eq!(fs::read_dir(staging.written()).unwrap().count(), 0);
    drop(staging);
    assert_eq!(scratch.0.names(), ["model", "source"]);
    assert_eq!(scratch.0.files("model").len(), 1);
}

/// Killed between the changes of `keep`.
#[test]
fn finishes_replacement_of_killed_run() {
    for force in [false, true] {
        let scratch = Scratch::new();
        let partial = ".model.openelm-partial";
        scratch.0.write("model/notes.txt", "notes");
        scratch.0.write("model/tokenizer.json", "old");
        scratch.0.write("model/model.safetensors", "new");
        scratch
            .0
            .write(&format!("{partial}/model/config.json"), config("new"));
        scratch
            .0
            .write(&format!("{partial}/journal.json"), "[\"tokenizer.json\"]");
        let begun = scratch.begin("model", force);
        assert_eq!(begun.is_ok(), force);
        drop(begun);
        assert_eq!(scratch.0.names(), ["model", "source"]);
        let files = scratch.0.files("model");
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["config.json", "model.safetensors", "notes.txt"]);
        assert_eq!(files["config.json"], config("new").as_bytes());
    }
}

#[test]
fn errors_name_the_target_not_the_staging_folder() {
    let scratch = Scratch::new();
    let target = scratch.0.join("model");
    let staging = scratch.begin("model", false).unwrap();
    let shown = |staging: &Staging, path: PathBuf| {
        let error = Error::io(path)(io::ErrorKind::StorageFull.into());
        staging.of_target(error).to_string()
    };
    let config = staging.written().join("config.json");
    let full = shown(&staging, config);
    assert_eq!(
        full,
        format!("{}/config.json: no storage space", target.display())
    );
    let full = shown(&staging, staging.written());
    assert_eq!(full, format!("{}: no storage space", target.display()));
    // A path outside the hidden folder does not change.
    let source = scratch.0.join("source/config.json");
    let full = shown(&staging, source.clone());
    assert_eq!(full, format!("{}: no storage space", source.display()));

    let staging = scratch.begin("model.gguf", false).unwrap();
    let error = staging.of_target(Error::Checkpoint {
        path: staging.written(),
        problem: "cut".into(),
    });
    let file = scratch.0.join("model.gguf");
    assert_eq!(error.to_string(), format!("{}: cut", file.display()));
}

#[test]
fn reports_file_in_place_of_staging_folder() {
    let scratch = Scratch::new();
    scratch.0.write(".model.openelm-partial", "");
    let message = scratch.begin("model", false).err().unwrap().to_string();
    let start = format!("{}: cannot write ", scratch.0.join("model").display());
    assert!(message.starts_with(&start), "{message}");
    assert!(
        message.contains(".model.openelm-partial beside it: "),
        "{message}"
    );
    assert_eq!(scratch.0.names(), [".model.openelm-partial", "source"]);
}

#[test]
fn rejects_concurrent_conversions() {
    let scratch = Scratch::new();
    let _first = scratch.begin("model", false).unwrap();
    let message = scratch.begin("model", false).err().unwrap().to_string();
    let holder = format!("process {} is writing here", std::process::id());
    assert!(message.contains(&holder), "{message}");
    assert!(scratch.0.join(".model.openelm-partial/run.lock").is_file());
}

#[test]
fn locks_the_target_folder() {
    let scratch = Scratch::new();
    scratch.0.write("model/config.json", config(""));
    let target = scratch.0.join("model");
    let training = WriteLock::acquire(&target, Activity::Training).unwrap();
    let message = scratch.begin("model", true).err().unwrap().to_string();
    assert!(message.contains("is training here"), "{message}");
    drop(training);
    let staging = scratch.begin("model", true).unwrap();
    let refused = |name: &str| {
        let folder = scratch.0.join(name);
        let error = WriteLock::acquire(&folder, Activity::Training).unwrap_err();
        assert!(error.to_string().contains("is writing here"), "{error}");
    };
    refused("model");
    drop(staging);

    // A new target, which another process creates.
    let staging = scratch.begin("new", false).unwrap();
    fs::create_dir(scratch.0.join("new")).unwrap();
    refused("new");
    scratch.0.write("new/notes.txt", "");
    let message = staging.keep().err().unwrap().to_string();
    assert!(
        message.contains("(`notes.txt`): choose another folder"),
        "{message}"
    );
    assert_eq!(scratch.0.files("new").len(), 1);
}

#[test]
fn other_files_of_the_target_stay() {
    let scratch = Scratch::new();
    scratch.0.write("model/config.json", config("old"));
    scratch.0.write("model/tokenizer.model", "old");
    scratch.0.write("model/notes.txt", "notes");
    scratch
        .0
        .write("model/adapters/adapters.safetensors", "adapter");
    let staging = scratch.begin("model", true).unwrap();
    fs::write(staging.written().join("config.json"), config("new")).unwrap();
    staging.keep().unwrap();
    assert_eq!(scratch.0.names(), ["model", "source"]);
    assert!(
        scratch
            .0
            .join("model/adapters/adapters.safetensors")
            .exists()
    );
    fs::remove_dir_all(scratch.0.join("model/adapters")).unwrap();
    let files = scratch.0.files("model");
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["config.json", "notes.txt"]);
    assert_eq!(files["config.json"], config("new").as_bytes());
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let scratch = Scratch::new();
    scratch.0.write("disk/old/config.json", config("old"));
    for (link, target) in [
        ("old", "disk/old"),
        ("new", "disk/new"),
        ("a.gguf", "disk/a"),
    ] {
        std::os::unix::fs::symlink(target, scratch.0.join(link)).unwrap();
        let staging = scratch.begin(link, link == "old").unwrap();
        if link == "a.gguf" {
            fs::write(staging.written(), "new").unwrap();
        } else {
            fs::write(staging.written().join("config.json"), config("new")).unwrap();
        }
        staging.keep().unwrap();
        assert!(scratch.0.join(link).is_symlink(), "{link}");
    }
    assert_eq!(fs::read(scratch.0.join("disk/a")).unwrap(), b"new");
    for name in ["disk/old", "disk/new"] {
        assert_eq!(
            scratch.0.files(name)["config.json"],
            config("new").as_bytes()
        );
    }
    fs::remove_file(scratch.0.join("disk/a")).unwrap();
    assert_eq!(fs::read_dir(scratch.0.join("disk")).unwrap().count(), 2);
}

#[test]
fn missing_parents_are_created_and_removed_after_an_error() {
    let scratch = Scratch::new();
    drop(scratch.begin("no/such/model", false).unwrap());
    assert_eq!(scratch.0.names(), ["source"]);
    let staging = scratch.begin("no/such/model", false).unwrap();
    fs::write(staging.written().join("config.json"), config("")).unwrap();
    staging.keep().unwrap();
    assert_eq!(scratch.0.files("no/such/model").len(), 1);
}

#[test]
fn rejects_targets_that_would_lose_files() {
    let scratch = Scratch::new();
    let message = |target, force| scratch.begin(target, force).err().unwrap().to_string();
    assert!(message("source", true).ends_with("are the same"));
    assert!(message("source/model", true).ends_with("inside the other"));
    fs::create_dir_all(scratch.0.join("photos")).unwrap();
    fs::write(scratch.0.join("photos/1.jpg"), "").unwrap();
    assert!(message("photos", true).contains("(`1.jpg`): choose another folder"));
    scratch.0.write("notes.txt", "notes");
    scratch.0.write("notes.gguf", "notes");
    fs::create_dir(scratch.0.join("folder.gguf")).unwrap();
    for force in [false, true] {
        assert!(message("notes.txt", force).contains("a file, expected a folder"));
        assert!(message("notes.gguf", force).contains("no GGUF file"));
        assert!(message("folder.gguf", force).contains("a folder, expected"));
    }
    assert!(message("notes.txt/model", true).ends_with("notes.txt: not a folder"));
    scratch.0.write("old.gguf", "GGUF and more");
    scratch.0.write("empty.gguf", "");
    for name in ["old.gguf", "empty.gguf"] {
        assert!(message(name, false).contains("exists"));
        drop(scratch.begin(name, true).unwrap());
    }
    assert!(message("source/..", true).contains("ends in a name"));
}
