//! Downloads that end early, and several at the same time.

use std::{fs, process::Stdio, thread, time::Duration};

use openelm_testing::{Random, works};

use crate::server::{Contents, Hub, weights};

const KILLS: usize = 20;

#[test]
fn a_killed_download_continues() {
    let hub = Hub::start();
    let bytes = weights().repeat(12);
    let size = bytes.len() as u64;
    let files = [
        ("config.json", Contents::small("{}")),
        ("model.safetensors", Contents::large(&bytes)),
    ];
    hub.add("models/local/large", files);
    hub.state().pause = Duration::from_millis(3);
    let pull = ["pull", "local/large", "-q"];
    let mut random = Random(11);
    let (mut kills, mut received) = (0, 0);
    while kills < KILLS {
        let mut child = hub.tool(&pull).stdout(Stdio::null()).spawn().unwrap();
        // At a random byte, or a random moment before the first one.
        let target = hub.sent() + random.below(size as usize / KILLS / 2) as u64;
        while hub.sent() < target && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let blobs = fs::read_dir(hub.cache().join("models--local--large/blobs"));
        let lengths = blobs.into_iter().flatten().flatten();
        let length = lengths
            .map(|file| file.metadata().unwrap().len())
            .max()
            .unwrap_or(0);
        // What was received stays.
        assert!(length >= received, "{length} after {received}");
        received = length;
        kills += 1;
    }
    assert!(received > 0 && received < size, "{received} of {size}");
    let before = hub.sent();
    works(hub.tool(&pull));
    let rest = hub.sent() - before;
    // A part that was on its way when the last process was killed may count too.
    let late = 2 * (1 << 14);
    assert!(
        rest <= size - received + 2 + late,
        "{rest} bytes after {received} of {size}"
    );
    let snapshot = hub.snapshot("models--local--large");
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), bytes);
    let last = hub.requests(|request| request.of_cdn).pop().unwrap();
    assert_eq!(last.headers["range"], format!("bytes={received}-"));
}

#[test]
fn two_processes_download_a_file_once() {
    let hub = Hub::start();
    hub.state().pause = Duration::from_millis(1);
    let pull = || {
        hub.tool(&["pull", "local/small", "-q"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = [pull(), pull(), pull()];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(hub.sent(), 600_002);
    let snapshot = hub.snapshot("models--local--small");
    assert_eq!(
        fs::read(snapshot.join("model.safetensors")).unwrap(),
        weights()
    );
}
