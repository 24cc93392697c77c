//! The cache without the Hub.

use std::{fs, os::unix::fs::symlink};

use openelm_testing::{assert_one_line, fails, run, works};

use crate::server::{COMMIT, Contents, Hub};

#[test]
fn offline_uses_the_cache() {
    let hub = Hub::start();
    let offline = |args: &[&str]| {
        let mut command = hub.tool(args);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    let parts = ["local/small: not in the cache ", "offline (HF_HUB_OFFLINE)"];
    fails(offline(&["pull", "local/small"]), 1, &parts);
    let parts = ["no such file or folder; as a repository: not in the cache "];
    fails(offline(&["info", "local/small"]), 1, &parts);
    assert_eq!(hub.requests(|_| true).len(), 0);
    works(hub.tool(&["pull", "local/small", "-q"]));
    let before = hub.requests(|_| true).len();
    let snapshot = hub.snapshot("models--local--small");
    for name in ["local/small", &format!("local/small@{COMMIT}")] {
        let found = works(offline(&["pull", name, "-q"]));
        assert_eq!(found.trim_end(), snapshot.to_str().unwrap());
    }
    assert_eq!(hub.requests(|_| true).len(), before);
    // A snapshot without its weights is not complete.
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    fails(
        offline(&["pull", "local/small"]),
        1,
        &["no model", "offline (HF_HUB_OFFLINE)"],
    );
}

#[test]
fn without_an_answer_the_cache_is_used() {
    let hub = Hub::start();
    works(hub.tool(&["pull", "local/small", "-q"]));
    let mut command = hub.tool(&["pull", "local/small"]);
    command.env("HF_ENDPOINT", "http://127.0.0.1:1");
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let first = outcome.stderr.lines().next().unwrap();
    assert!(
        first.contains("no connection") && first.ends_with("using 0123456 of the cache"),
        "{first}"
    );
    // A repository that is gone is an error.
    hub.state().repositories.clear();
    fails(
        hub.tool(&["pull", "local/small"]),
        1,
        &["no such repository"],
    );
}

#[test]
fn a_new_commit_is_a_new_snapshot() {
    let hub = Hub::start();
    works(hub.tool(&["pull", "local/small", "-q"]));
    let before = hub.sent();
    let commit = "f".repeat(40);
    hub.state().commit = Some(commit.clone());
    let mut files = hub.state().repositories["models/local/small"].clone();
    files.insert("config.json".into(), Contents::small("{\"a\": 1}"));
    hub.add("models/local/small", files);
    let found = works(hub.tool(&["pull", "local/small", "-q"]));
    assert!(found.trim_end().ends_with(&commit));
    // Only the file that has changed.
    assert_eq!(hub.sent() - before, 8);
    let listed = works(hub.tool(&["models", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let revisions = |commit: &str| {
        let all = listed["repositories"].as_array().unwrap();
        let one = all.iter().find(|one| one["commit"] == commit).unwrap();
        (one["revisions"].clone(), one["bytes"].clone())
    };
    assert_eq!(
        revisions(&commit),
        (serde_json::json!(["main"]), 600_008.into())
    );
    assert_eq!(revisions(COMMIT), (serde_json::json!([]), 600_002.into()));
    assert_eq!(works(hub.tool(&["models"])).lines().count(), 3);
}

#[test]
fn verifies_the_files_of_the_cache() {
    let hub = Hub::start();
    works(hub.tool(&["pull", "local/small", "-q"]));
    let table = works(hub.tool(&["models"]));
    assert_eq!(works(hub.tool(&["models", "--verify"])), table);
    let snapshot = hub.snapshot("models--local--small");
    let blob = snapshot.join("model.safetensors").canonicalize().unwrap();
    let right = fs::read(&blob).unwrap();
    let mut wrong = right.clone();
    wrong[1000] ^= 1;
    fs::write(&blob, &wrong).unwrap();
    let advice = format!("download it again: openelm pull local/small@{COMMIT}");
    let parts = [blob.to_str().unwrap(), "do not have the hash", &*advice];
    let found = run(hub.tool(&["models", "--verify"]));
    assert_eq!((found.code, found.stdout), (Some(1), table));
    assert_one_line(&found.stderr, &parts);
    let listed = run(hub.tool(&["models", "--verify", "--json"])).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let damaged = &listed["repositories"][0]["damaged"];
    assert_eq!(*damaged, serde_json::json!([blob]));
    // As the message says.
    fs::remove_file(&blob).unwrap();
    let found = run(hub.tool(&["models", "--verify"]));
    assert_eq!(found.code, Some(1));
    let link = snapshot.join("model.safetensors");
    let parts = [link.to_str().unwrap(), "is missing", &*advice];
    assert_one_line(&found.stderr, &parts);
    works(hub.tool(&["pull", &format!("local/small@{COMMIT}"), "-q"]));
    assert_eq!(fs::read(&blob).unwrap(), right);
    works(hub.tool(&["models", "--verify"]));
}

#[test]
fn reads_a_cache_with_other_contents() {
    let hub = Hub::start();
    assert_eq!(works(hub.tool(&["models"])), "");
    let cache = hub.cache();
    for folder in [
        "models--o--n/snapshots/not-a-commit",
        "models--bad",
        "spaces--o--n/snapshots",
    ] {
        fs::create_dir_all(cache.join(folder)).unwrap();
    }
    let snapshot = cache.join("datasets--o--d/snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("data")).unwrap();
    fs::write(snapshot.join("data/a.jsonl"), "123").unwrap();
    symlink("..", snapshot.join("data/circle")).unwrap();
    symlink("nowhere", snapshot.join("broken")).unwrap();
    let found = run(hub.tool(&["models", "--verify"]));
    assert_one_line(&found.stderr, &["snapshots", "broken: the file is missing"]);
    let listed = found.stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(
        lines[1].starts_with("o/d   dataset  0123456   "),
        "{listed}"
    );
}
