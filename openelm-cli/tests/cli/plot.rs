//! `openelm plot`.

use std::fs;

use openelm_testing::{TempDir, fails, success};

use crate::tool::openelm;

#[test]
fn runs_and_logs_of_corenet_are_one_picture() {
    let folder = TempDir::new();
    let steps = (1..=30).map(|at| {
        let loss = 2.0 + 5.0 / f64::from(at);
        format!("{{\"iteration\": {at}, \"train_loss\": {loss}, \"learning_rate\": 1e-3}}\n")
    });
    folder.write("run/metrics.jsonl", steps.collect::<String>());
    let lines = (0..3).map(|nth| {
        format!(
            "2024-03-01 12:00:01 - LOGS    - Epoch:   0 [{:8}/  350000], loss: {{'total_loss': 4.5, \
             'ce_loss': 4.4, 'z_loss': 0.1}}, LR: [1e-06], Elapsed time:  3.20\n",
            nth * 10 + 1
        )
    });
    folder.write("apple/training_logs.txt", lines.collect::<String>());
    let at = |name: &str| folder.at(name);
    let (run, log, out) = (at("run"), at("apple/training_logs.txt"), at("losses.png"));
    let plot = |more: &[&str]| openelm(&[&["plot", "--output", &*out, "--quiet"], more].concat());
    success(plot(&[&run, &log, "--title", "Losses <of> both"]));
    let svg = fs::read_to_string(at("losses.svg")).unwrap();
    for text in [
        "run",
        "apple",
        "Losses &lt;of&gt; both",
        "cross-entropy (nats per token), mean since the start",
    ] {
        assert!(svg.lines().any(|line| line == text), "{text}: {svg}");
    }
    assert!(fs::read(&out).unwrap().starts_with(b"\x89PNG"));

    fails(
        plot(&[&run]),
        1,
        &["losses.svg", "exists; --force replaces it"],
    );
    success(plot(&[&run, "--force", "--quantity=learning-rate"]));
    let svg = fs::read_to_string(at("losses.svg")).unwrap();
    assert!(svg.contains("learning rate") && !svg.contains("mean since"));
    fails(
        plot(&[&run, "--force", "--quantity=z-loss"]),
        1,
        &[&run, "has no z-loss"],
    );
    fails(
        plot(&[&run, "--force", "--names=a,b"]),
        2,
        &["--names: expected 1, one per run, found 2"],
    );
    fails(
        openelm(&["plot", &run, "--output", "a.jpg"]),
        2,
        &["--output: expected a file with the ending .svg or .png, found a.jpg"],
    );
    let nowhere = at("nowhere");
    fails(plot(&[&nowhere, "--force"]), 1, &[&nowhere]);
}
