//! Uploads, and the Hub's side of them.

use std::{fs, sync::Mutex};

use openelm_testing::{TempDir, fails, tales, works};
use serde_json::{Value, json};

use crate::server::{Contents, Hub, Request, State};

/// The Hub's answer to a request of an upload; `None` without a token.
pub(crate) fn receive(
    state: &Mutex<State>,
    request: &Request,
    address: &str,
    cdn: &str,
) -> Option<Value> {
    if request.headers.get("authorization")? != "Bearer hf_writer" {
        return None;
    }
    let lines = request.body.split(|&byte| byte == b'\n');
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut state = state.lock().unwrap();
    if request.path.contains("/commit/") {
        let mut files = std::collections::BTreeMap::new();
        for line in lines.skip(1) {
            let value = &line["value"];
            let contents = match line["key"].as_str() {
                Some("lfsFile") => Contents::large(&state.uploads[value["oid"].as_str().unwrap()]),
                // The test compares the encoded text.
                _ => Contents::small(value["content"].as_str().unwrap()),
            };
            files.insert(value["path"].as_str().unwrap().to_owned(), contents);
        }
        state.repositories.insert("models/me/pushed".into(), files);
        return Some(
            json!({ "commitUrl": format!("{address}/me/pushed/commit/1"), "commitOid": "1" }),
        );
    }
    let body = lines.next()?;
    if request.path.contains("/preupload/") {
        let mode = |file: &Value| {
            let path = file["path"].as_str().unwrap();
            let is_large = path.ends_with(".safetensors");
            let mode = if is_large { "lfs" } else { "regular" };
            json!({ "path": path, "uploadMode": mode, "shouldIgnore": path == "LICENSE" })
        };
        let files: Vec<Value> = body["files"].as_array()?.iter().map(mode).collect();
        return Some(json!({ "files": files }));
    }
    if request.path.ends_with("/objects/batch") {
        let part_size = state.part_size;
        let object = |object: &Value| {
            let oid = object["oid"].as_str().unwrap();
            let size = object["size"].as_u64().unwrap() as usize;
            let href = format!("{cdn}/upload/{oid}");
            let verify = json!({ "href": format!("{address}/verify") });
            let upload = match part_size {
                None => json!({ "href": href }),
                Some(part) => {
                    let mut header = json!({ "chunk_size": part.to_string() });
                    for number in 1..=size.div_ceil(part) {
                        header[format!("{number:05}")] = format!("{href}?part={number}").into();
                    }
                    json!({ "href": format!("{address}/complete"), "header": header })
                }
            };
            json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
        };
        let objects: Vec<Value> = body["objects"].as_array()?.iter().map(object).collect();
        return Some(json!({ "transfer": "basic", "objects": objects }));
    }
    Some(json!({}))
}

fn model() -> TempDir {
    let folder = TempDir::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tales().join(name), folder.join(name)).unwrap();
    }
    folder.write("LICENSE", "as you like");
    folder.write("notes.pdf", "stays here");
    folder.write(".secret.json", "stays here");
    folder
}

#[test]
fn a_pushed_model_has_its_files_and_a_card() {
    for part_size in [None, Some(1 << 20)] {
        let hub = Hub::start();
        hub.state().part_size = part_size;
        let folder = model();
        let args = [
            "push",
            folder.as_str(),
            "me/pushed",
            "-q",
            "--private",
            "--revision",
            "v1",
        ];
        let mut command = hub.tool(&args);
        command.env("HF_TOKEN", "hf_writer");
        let printed = works(command);
        assert_eq!(
            printed.trim_end(),
            format!("{}/me/pushed/commit/1", hub.address)
        );
        let files = hub.state().repositories["models/me/pushed"].clone();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "README.md",
                "config.json",
                "model.safetensors",
                "tokenizer.json"
            ]
        );
        let weights = fs::read(tales().join("model.safetensors")).unwrap();
        assert!(files["model.safetensors"].bytes == weights);
        // `base64` of "---\nlibrary_name: mlx\n".
        let card = String::from_utf8(files["README.md"].bytes.clone()).unwrap();
        assert!(card.starts_with("LS0tCmxpYnJhcnlfbmFtZTogbWx4C"), "{card}");
        let created = hub.requests(|request| request.path == "/api/repos/create");
        let created: Value = serde_json::from_slice(&created[0].body).unwrap();
        let expected = json!({
            "name": "pushed", "organization": "me", "type": "model", "visibility": "private",
        });
        assert_eq!(created, expected);
        assert_eq!(
            hub.requests(|request| request.path == "/api/models/me/pushed/branch/v1")
                .len(),
            1
        );
        assert_eq!(hub.requests(|request| request.path == "/verify").len(), 1);
        let parts = hub.requests(|request| request.method == "PUT").len();
        let expected = part_size.map_or(1, |size| weights.len().div_ceil(size));
        assert_eq!(parts, expected);
        hub.assert_token_stayed();
    }
}

#[test]
fn an_upload_needs_a_model_and_a_token() {
    let hub = Hub::start();
    let folder = model();
    let push = |folder: &str| hub.tool(&["push", folder, "me/pushed"]);
    fails(
        push(folder.as_str()),
        1,
        &["me/pushed: an upload needs a token with write access"],
    );
    fails(
        push(hub.folder.as_str()),
        2,
        &["expected the folder of a model", "or adapter"],
    );
    let mut command = push(folder.as_str());
    command.env("HF_TOKEN", "hf_reader");
    fails(command, 1, &["the Hub refuses access: no write access"]);
    assert_eq!(hub.state().uploads.len(), 0);
    let mut command = push(folder.as_str());
    command
        .env("HF_TOKEN", "hf_writer")
        .env("HF_HUB_OFFLINE", "1");
    fails(command, 1, &["nothing is uploaded; offline"]);
}

#[test]
fn a_push_keeps_the_card_of_the_repository() {
    let hub = Hub::start();
    let card = [("README.md", Contents::small("written by hand"))];
    hub.add("models/me/pushed", card);
    let folder = model();
    let push = || {
        let mut command = hub.tool(&["push", folder.as_str(), "me/pushed", "-q"]);
        command.env("HF_TOKEN", "hf_writer");
        works(command);
        let state = hub.state();
        let files = &state.repositories["models/me/pushed"];
        files.keys().cloned().collect::<Vec<_>>()
    };
    let weights = ["config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(push(), weights);
    // The server's commits replace all files: the repository has no card now.
    assert_eq!(push(), [&["README.md"], &weights[..]].concat());
    // A card in the folder is uploaded.
    folder.write("README.md", "another");
    assert_eq!(push(), [&["README.md"], &weights[..]].concat());
}
