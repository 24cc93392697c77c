//! Repositories and names that are refused, each with advice.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use openelm_testing::{fails, run, works};

use crate::server::{Contents, Hub};

#[test]
fn gated_repositories_name_the_page_and_the_token() {
    let hub = Hub::start();
    hub.state().gated.push("models/local/small".into());
    let page = format!("accept the licence at {}/local/small", hub.address);
    fails(
        hub.tool(&["pull", "local/small"]),
        1,
        &["gated", &page, "set HF_TOKEN"],
    );
    let mut command = hub.tool(&["pull", "local/small"]);
    command.env("HF_TOKEN", "hf_stranger");
    fails(command, 1, &["the token's account has no access", &page]);
    // A token that is not sent.
    let mut command = hub.tool(&["pull", "local/small"]);
    command
        .env("HF_TOKEN", "hf_member")
        .env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    fails(command, 1, &["gated", "set HF_TOKEN"]);
    // The file of `hf auth login`.
    hub.folder.write("token", "hf_member\n");
    works(hub.tool(&["pull", "local/small", "-q"]));
}

#[test]
fn absent_repositories_revisions_and_files_are_told_apart() {
    let hub = Hub::start();
    let none = format!("no such repository at {}, or it is private", hub.address);
    for (args, parts) in [
        (
            &["pull", "local/nothing"][..],
            &["local/nothing", &none][..],
        ),
        (
            &["pull", "local/small@v2"],
            &["local/small@v2: no such revision"],
        ),
        (
            &["pull", "local/small", "--revision", "v2"],
            &["local/small@v2: no such revision"],
        ),
        (
            &["pull", "local/small", "--include", "*.gguf"],
            &[
                "no a file that matches --include",
                "config.json, model.safetensors",
            ],
        ),
        (
            &["info", "local/nothing"],
            &[
                "local/nothing: no such file or folder; as a repository: ",
                &none,
            ],
        ),
        (
            &["generate", "-p", "x", "-m", "local/small@v2"],
            &["no such file or folder; as a repository: no such revision"],
        ),
    ] {
        fails(hub.tool(args), 1, parts);
    }
    for (args, part) in [
        (
            &["pull", "small"][..],
            "REPO: expected owner/name or owner/name@revision, found small",
        ),
        (&["pull", "a/b/c"], "expected owner/name"),
        (&["pull", "../b"], "expected owner/name"),
        (
            &["pull", "a/b@c", "--revision", "d"],
            "--revision: REPO has a revision too",
        ),
        (
            &["pull", "a/b", "--revision", "../d"],
            "--revision: expected a branch, tag or commit",
        ),
    ] {
        fails(hub.tool(args), 2, &[part]);
    }
    // Not a name of a repository: the error of a path.
    fails(
        hub.tool(&["info", "./nothing"]),
        1,
        &["./nothing: no such file or folder; expected a model folder"],
    );
}

#[test]
fn names_from_the_server_stay_in_the_cache() {
    for name in [
        "../../../escaped.json",
        "/tmp/escaped.json",
        "a/../../escaped.json",
        "",
        "a\\b.json",
        "a\0.json",
        "config.json/b.json",
    ] {
        let hub = Hub::start();
        let files = [
            (name, Contents::small("x")),
            ("config.json", Contents::small("{}")),
            ("model.safetensors", Contents::large("y")),
        ];
        hub.add("models/local/evil", files);
        fails(
            hub.tool(&["pull", "local/evil"]),
            1,
            &["local/evil: the unsafe file name"],
        );
        assert_eq!(hub.folder.names(), [] as [&str; 0], "{name:?}");
    }
    // A commit is a folder's name too.
    let hub = Hub::start();
    hub.state().commit = Some("../../../escaped".into());
    fails(hub.tool(&["pull", "local/small"]), 1, &["invalid commit"]);
    assert_eq!(hub.folder.names(), [] as [&str; 0]);
}

#[test]
fn a_hub_that_is_not_there_is_an_error() {
    let hub = Hub::start();
    let mut command = hub.tool(&["pull", "local/small"]);
    // A port that nothing listens on: the listener is dropped at once.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    command.env("HF_ENDPOINT", &address);
    fails(command, 1, &["local/small: ", &address, "no connection"]);
    for (name, value) in [
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_HUB_ETAG_TIMEOUT", "soon"),
        ("HF_TOKEN", "two words"),
    ] {
        let mut command = hub.tool(&["pull", "local/small"]);
        command.env(name, value);
        fails(command, 2, &[name, "expected"]);
    }
    // A server that is no Hub.
    hub.add("models/local/odd", [("config.json", Contents::small("{}"))]);
    fails(
        hub.tool(&["pull", "local/odd"]),
        1,
        &["the repository has no model, adapter or tokenizer"],
    );
}

#[test]
fn a_full_disk_is_found_before_the_download() {
    // The tool's own check needs a small file system; a limit of file sizes fails later.
    let hub = Hub::start();
    let tool = env!("CARGO_BIN_EXE_openelm");
    let script = format!("ulimit -f 200; exec {tool} pull local/small -q");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]);
    for (name, value) in hub.tool(&[]).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let outcome = run(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains(".incomplete: File too large"),
        "{outcome:?}"
    );
    let blobs = hub.cache().join("models--local--small/blobs");
    let kept = fs::read_dir(blobs).unwrap().flatten();
    assert!(
        kept.map(|file| file.metadata().unwrap().len())
            .max()
            .unwrap()
            > 50_000
    );
    let before = hub.sent();
    works(hub.tool(&["pull", "local/small", "-q"]));
    assert!(hub.sent() - before < 600_000);
}

#[test]
fn a_proxy_that_is_not_supported_is_not_passed_over() {
    let hub = Hub::start();
    for (name, value) in [
        ("ALL_PROXY", "socks5://user:secret@127.0.0.1:1"),
        ("HTTPS_PROXY", "secret::"),
    ] {
        let mut command = hub.tool(&["pull", "local/small"]);
        command.env(name, value);
        let expected = format!("{name}: expected an address such as http://proxy:3128");
        fails(command, 2, &[&expected]);
        assert_eq!(hub.requests(|_| true).len(), 0);
        let mut command = hub.tool(&["pull", "local/small", "-q"]);
        command
            .env("ALL_PROXY", "socks5://127.0.0.1:1")
            .env("NO_PROXY", "127.0.0.1");
        works(command);
        hub.state().log.clear();
    }
}

#[test]
fn a_folder_whose_name_is_no_text_is_not_passed_over() {
    let hub = Hub::start();
    let mut command = hub.tool(&["pull", "local/small"]);
    command.env("HF_HUB_CACHE", OsStr::from_bytes(b"/tmp/\xff"));
    fails(
        command,
        2,
        &["HF_HUB_CACHE: expected UTF-8 text, found other bytes"],
    );
    assert!(!hub.cache().exists());
}
