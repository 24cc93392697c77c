//! The page at `/`, without a browser; `tests/page` runs it in one.

use std::collections::BTreeMap;

use openelm_core::chat::ChatTemplate;
use openelm_server::ApiKeys;
use openelm_testing::TempDir;
use serde_json::{Value, json};

use crate::{
    client::Response,
    running::{Running, load, start, start_with},
};

/// The files of the page by path, which are found as a browser finds them.
fn files(server: &Running) -> BTreeMap<String, Response> {
    let mut files = BTreeMap::new();
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        if files.contains_key(&path) {
            continue;
        }
        let response = server.get(&path);
        assert_eq!(response.status, 200, "{path}");
        for link in ["href=\"", "src=\"", "from \""] {
            let found = response.body.split(link).skip(1);
            paths.extend(found.map(|rest| {
                let target = rest.split('"').next().unwrap();
                match target.strip_prefix("./") {
                    Some(sibling) => format!("/page/{sibling}"),
                    None => format!("/{target}"),
                }
            }));
        }
        files.insert(path, response);
    }
    files
}

#[test]
fn the_page_and_its_files_have_strict_headers() {
    let server = start();
    let files = files(&server);
    assert_eq!(files.len(), 14);
    for (path, file) in &files {
        let kind = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some(_) => "text/javascript; charset=utf-8",
        };
        for (name, value) in [
            ("content-type", kind),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-cache"),
            ("referrer-policy", "no-referrer"),
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                 img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                 require-trusted-types-for 'script'; trusted-types 'none'",
            ),
        ] {
            assert_eq!(file.header(name), Some(value), "{path}");
        }
    }
    assert_eq!(server.post("/", &json!({})).status, 405);
    assert_eq!(server.get("/page/").status, 404);
    assert_eq!(server.get("/page/../index.html").status, 404);
}

#[test]
fn the_page_has_no_other_host_no_inline_code_and_no_html_of_strings() {
    for (path, file) in files(&start()) {
        let namespace = "xmlns=\"http://www.w3.org/2000/svg\"";
        let text = file.body.replace(namespace, "");
        for part in [
            "://",
            "\"//",
            "url(",
            "@import",
            "<style",
            " style=",
            "javascript:",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "localStorage",
            "document.cookie",
        ] {
            assert!(!text.contains(part), "{path}: {part}");
        }
        for script in text.split("<script").skip(1) {
            assert!(script.starts_with(" type=\"module\" src=\"page/"), "{path}");
        }
        let handlers = text.split_whitespace();
        let mut handlers = handlers.filter(|word| word.starts_with("on") && word.contains("=\""));
        assert_eq!(handlers.next(), None, "{path}");
    }
}

#[test]
fn an_unchanged_file_is_not_sent_again() {
    let server = start();
    let files = files(&server);
    let mut tags: Vec<_> = files
        .values()
        .filter_map(|file| file.header("etag"))
        .collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), files.len());
    let tag = files["/"].header("etag").unwrap();
    for (known, status) in [
        (tag.to_owned(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".into(), 304),
        ("\"other\"".into(), 200),
        (tag.trim_matches('"').into(), 200),
    ] {
        let response = server.ask("GET", "/", &[("If-None-Match", &known)], b"");
        assert_eq!(response.status, status, "{known}");
        assert_eq!(response.body.is_empty(), status == 304);
        assert_eq!(response.header("etag"), Some(tag));
        assert!(response.header("content-security-policy").is_some());
    }
}

#[test]
fn the_page_needs_no_key() {
    let folder = TempDir::new();
    folder.write("keys", "sesame\n");
    let keys = ApiKeys::read(&folder.join("keys")).unwrap();
    let server = start_with(load(), |options| options.api_keys = keys);
    // Every file is read without a key.
    files(&server);
    for path in ["/v1/models", "/page", "/page/", "/page/other.js", "//"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    // A page of another name is refused, as everywhere.
    let response = server.ask("GET", "/", &[("Host", "attacker.example")], b"");
    assert_eq!(response.status, 403);
}

#[test]
fn a_model_has_its_template_and_defaults() {
    for (template, name) in [
        (ChatTemplate::OpenElmInstruct, "openelm-instruct"),
        (ChatTemplate::Instruction, "instruction"),
        (ChatTemplate::Plain, "plain"),
    ] {
        let server = start_with(load(), |options| {
            options.chat_template = template;
            options.generate.max_tokens = 12;
            options.generate.sampling.temperature = 0.7;
            options.generate.sampling.seed = Some(3);
        });
        let model = &server.get("/v1/models").json()["data"][0];
        assert_eq!(model["chat_template"], name);
        let defaults = json!({
            "max_tokens": 12, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
            "repetition_penalty": 1.0, "seed": 3
        });
        assert_eq!(model["defaults"], defaults);
        // They are fields of requests, with values that requests may have.
        let mut body = model["defaults"].clone();
        body["prompt"] = json!("Once");
        let text = |body: &Value| server.posted("/v1/completions", body)["choices"].clone();
        assert_eq!(text(&body), text(&json!({ "prompt": "Once" })));
    }
}
