//! Faults of the Hub and of the connection: each ends in the right file or a clear error.

use std::{fs, time::Duration};

use openelm_testing::{Random, assert_one_line, fails, run, works};

use crate::server::{COMMIT, Contents, Hub, weights};

const PULL: [&str; 3] = ["pull", "local/small", "-q"];

/// Checks that the snapshot has the right files, and nothing incomplete is left.
fn assert_whole(hub: &Hub) {
    let snapshot = hub.snapshot("models--local--small");
    assert_eq!(
        fs::read(snapshot.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(fs::read(snapshot.join("config.json")).unwrap(), b"{}");
    let blobs = fs::read_dir(hub.cache().join("models--local--small/blobs")).unwrap();
    assert_eq!(blobs.count(), 2);
}

fn assert_nothing(hub: &Hub) {
    assert!(!hub.snapshot("models--local--small").exists());
    assert!(!hub.cache().join("models--local--small/refs/main").exists());
}

#[test]
fn downloads_into_the_layout_of_huggingface_hub() {
    let hub = Hub::start();
    let mut command = hub.tool(&["pull", "local/small"]);
    command.env("HF_TOKEN", "hf_secret");
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let snapshot = hub.snapshot("models--local--small");
    assert_eq!(outcome.stdout.trim_end(), snapshot.to_str().unwrap());
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "downloading local/small: 2 files, 600 kB");
    assert!(lines[1].starts_with("downloaded local/small: 600 kB in "));
    assert_whole(&hub);
    let link = fs::read_link(snapshot.join("model.safetensors")).unwrap();
    let etag = Contents::large(weights()).etag();
    assert_eq!(link.to_str().unwrap(), format!("../../blobs/{etag}"));
    let reference = hub.cache().join("models--local--small/refs/main");
    assert_eq!(fs::read_to_string(reference).unwrap(), COMMIT);
    let lock = format!(".locks/models--local--small/{etag}.lock");
    assert!(hub.cache().join(lock).exists() && hub.cache().join("CACHEDIR.TAG").exists());
    // The Hub received the token, the other host did not.
    let with_token = hub.requests(|request| request.headers.contains_key("authorization"));
    assert!(
        with_token
            .iter()
            .any(|request| request.path.contains("/resolve/"))
    );
    assert_eq!(hub.requests(|request| request.of_cdn).len(), 1);
    hub.assert_token_stayed();
    // The second time only the commit is requested.
    let before = hub.requests(|_| true).len();
    works(hub.tool(&PULL));
    assert_eq!(hub.requests(|_| true).len(), before + 1);
}

#[test]
fn large_files_may_be_on_the_hub_itself() {
    let hub = Hub::start();
    let etag = Contents::large(weights()).etag();
    for target in [
        format!("{}/blob/{etag}", hub.address),
        format!("/blob/{etag}"),
    ] {
        hub.state().redirect = Some(target);
        works(hub.tool(&PULL));
        assert_whole(&hub);
        fs::remove_dir_all(hub.cache()).unwrap();
    }
    assert_eq!(hub.requests(|request| request.of_cdn).len(), 0);
}

#[test]
fn continues_at_the_byte_where_the_connection_ended() {
    let hub = Hub::start();
    let mut random = Random(7);
    let cuts: Vec<usize> = (0..6).map(|_| random.below(90_000)).collect();
    hub.state().cuts = [&[1, 0], &cuts[..]].concat();
    works(hub.tool(&PULL));
    assert_whole(&hub);
    let size = weights().len() as u64;
    assert!(hub.sent() <= size + 2, "{} bytes", hub.sent());
}

#[test]
fn begins_again_without_ranges() {
    for wrong in [false, true] {
        let hub = Hub::start();
        hub.state().cuts = vec![2, 100_000];
        hub.state().without_ranges = !wrong;
        hub.state().wrong_ranges = wrong;
        works(hub.tool(&PULL));
        assert_whole(&hub);
    }
}

#[test]
fn begins_again_where_ranges_are_refused() {
    let hub = Hub::start();
    hub.state().cuts = vec![2, 100_000];
    hub.state().refuses_ranges = true;
    works(hub.tool(&PULL));
    assert_whole(&hub);
}

#[test]
fn an_outage_loses_no_bytes() {
    let hub = Hub::start();
    let files = [("model.safetensors", Contents::large(weights()))];
    hub.add("models/local/small", files);
    hub.state().cuts = vec![400_000];
    hub.state().outage = 5;
    let pull = ["pull", "local/small", "--include", "*", "-q"];
    fails(hub.tool(&pull), 1, &["status 503"]);
    let before = hub.sent();
    works(hub.tool(&pull));
    assert_eq!(hub.sent() - before, 200_000);
}

#[test]
fn wrong_bytes_are_not_kept() {
    let hub = Hub::start();
    // Once: downloaded again. The small file may be the one.
    hub.state().corrupt = 1;
    works(hub.tool(&PULL));
    assert_whole(&hub);

    let hub = Hub::start();
    hub.state().corrupt = 4;
    let etag = Contents::large(weights()).etag();
    fails(
        hub.tool(&PULL),
        1,
        &["local/small: ", "expected the hash ", "found "],
    );
    assert_nothing(&hub);
    assert!(
        !hub.cache()
            .join("models--local--small/blobs")
            .join(&etag)
            .exists()
    );
    works(hub.tool(&PULL));
    assert_whole(&hub);
}

#[test]
fn a_wrong_beginning_of_an_earlier_download_is_replaced() {
    let hub = Hub::start();
    let etag = Contents::large(weights()).etag();
    let blobs = hub.cache().join("models--local--small/blobs");
    fs::create_dir_all(&blobs).unwrap();
    for beginning in [vec![0; 50_000], vec![1; 700_000]] {
        fs::write(blobs.join(format!("{etag}.incomplete")), beginning).unwrap();
        works(hub.tool(&PULL));
        assert_whole(&hub);
        fs::remove_dir_all(hub.cache().join("models--local--small/snapshots")).unwrap();
        fs::remove_file(blobs.join(&etag)).unwrap();
    }
}

#[test]
fn busy_and_broken_servers_are_tried_again() {
    let hub = Hub::start();
    let statuses = [(429, "Retry-After: 0\r\n"), (503, ""), (500, "")];
    hub.state().statuses = statuses
        .map(|(status, headers)| (status, headers.into()))
        .into();
    works(hub.tool(&PULL));
    assert_whole(&hub);
}

#[test]
fn an_exhausted_server_is_an_error() {
    for (status, headers, part) in [
        (
            429,
            "Retry-After: 4000\r\n",
            "too many requests (429); wait some minutes, or set HF_TOKEN",
        ),
        (503, "", "status 503 of the Hub"),
    ] {
        let hub = Hub::start();
        hub.state().statuses = vec![(status, headers.into()); 5];
        fails(hub.tool(&PULL), 1, &["local/small: ", part]);
        assert_nothing(&hub);
    }
}

#[test]
fn a_server_that_sends_nothing_more_is_left() {
    let hub = Hub::start();
    hub.state().stalls = 2;
    let mut command = hub.tool(&PULL);
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    works(command);
    assert_whole(&hub);
}

#[test]
fn slow_is_not_broken() {
    let hub = Hub::start();
    hub.state().pause = Duration::from_millis(20);
    let mut command = hub.tool(&PULL);
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    works(command);
    assert_whole(&hub);
}

#[test]
fn the_token_does_not_follow_a_redirect_to_another_host() {
    let hub = Hub::start();
    hub.state().gated.push("models/local/small".into());
    let mut command = hub.tool(&PULL);
    command.env("HF_TOKEN", "hf_member");
    works(command);
    hub.assert_token_stayed();
    // Nor is it in the cache or in messages.
    let debug = |text: &str| assert!(!text.contains("hf_member"), "{text}");
    for name in hub.folder.names() {
        debug(&name);
    }
    for folder in ["refs", "blobs"] {
        for (name, bytes) in hub
            .folder
            .files(&format!("hub/models--local--small/{folder}"))
        {
            debug(&name);
            debug(&String::from_utf8_lossy(&bytes));
        }
    }
    hub.state().redirect = Some("file:///etc/passwd".into());
    fs::remove_dir_all(hub.cache()).unwrap();
    let mut command = hub.tool(&PULL);
    command.env("HF_TOKEN", "hf_member");
    let outcome = run(command);
    assert_eq!(outcome.code, Some(1));
    assert_one_line(&outcome.stderr, &["a redirect without a valid address"]);
    debug(&outcome.stderr);
}

#[test]
fn a_failure_ends_the_other_downloads() {
    let hub = Hub::start();
    let large = Contents::large(weights().repeat(20));
    let files = [
        ("config.json", Contents::small("{}")),
        ("model-1.safetensors", large),
        ("model-2.safetensors", Contents::large(weights())),
    ];
    hub.add("models/local/sharded", files);
    // The parts of 16 kB take a minute. The attempts at the smaller file take seconds.
    hub.state().pause = Duration::from_millis(80);
    let small = Contents::large(weights()).etag();
    hub.state().absent = Some(small);
    let pull = ["pull", "local/sharded", "-q"];
    fails(hub.tool(&pull), 1, &["model-2.safetensors: status 404"]);
    let sent = hub.sent();
    assert!(sent < 10_000_000, "{sent} bytes");
}
