//! A process that exits while the library is working ends with its own exit code.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    env,
    process::{Command, exit},
    time::{Duration, Instant},
};

#[cfg(feature = "inject-faults")]
use openelm_ffi::{FinetuneOptions, default_finetune_options, finetune};
use openelm_ffi::{
    GenerationEvent, GenerationOptions, LoadOptions, RequestOptions, default_generation_options,
    load_model, pause,
};
use openelm_testing::{TempDir, block_on, tales};

/// The point of the work at which the child exits.
const QUIT: &str = "OPENELM_TEST_QUIT";
const CODE: i32 = 7;

#[test]
fn quitting_during_work_is_clean() {
    if let Ok(how) = env::var(QUIT) {
        match how.split_once(' ') {
            Some((tokens, lets_go)) => {
                quit_in_text(tokens.parse().unwrap(), lets_go.parse().unwrap());
            }
            #[cfg(feature = "inject-faults")]
            None if how == "training" => quit_in_training(),
            None => quit_in_load(how == "paused"),
        }
    }
    // `exit` runs no destructor that removes the children's temporary folders.
    let temporary = TempDir::new();
    let texts = (0..40).map(|round| format!("{} {}", round % 10, round % 2 == 0));
    let loads = (0..10).map(|round| ["load", "paused"][round % 2].to_owned());
    let trainings = cfg!(feature = "inject-faults").then(|| "training".to_owned());
    for how in texts.chain(loads).chain(trainings) {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "quitting_during_work_is_clean"]);
        let started = Instant::now();
        child.env(QUIT, &how).env("TMPDIR", &*temporary);
        let ended = child.output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(CODE), "{how}: {stderr}");
        // A longer time means that the worker did not stop and `exit` timed out.
        assert!(started.elapsed() < Duration::from_secs(5), "{how}");
    }
}

fn quit_in_load(paused: bool) -> ! {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    let _ = block_on(run.next()).unwrap();
    if paused {
        pause(0).unwrap();
    }
    exit(CODE)
}

/// Exits during a validation of eight seconds.
#[cfg(feature = "inject-faults")]
fn quit_in_training() -> ! {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    let folder = TempDir::new();
    let rows = "{\"text\": \"A fox.\"}\n".repeat(80);
    for name in ["train.jsonl", "valid.jsonl"] {
        folder.write(name, &rows);
    }
    let options = FinetuneOptions {
        batch_size: 1,
        val_batches: None,
        ..default_finetune_options().unwrap()
    };
    let model = run.model().unwrap();
    openelm_core::internal::inject_delay(Duration::from_millis(100));
    let target = folder.at("run");
    let run = finetune(model, folder.as_str().into(), target, options, false).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    std::mem::forget(run);
    exit(CODE)
}

fn quit_in_text(tokens: usize, lets_go: bool) -> ! {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    let model = run.model().unwrap();
    let options = GenerationOptions {
        max_tokens: 400,
        ignore_eos: true,
        ..default_generation_options().unwrap()
    };
    let stream = model
        .generate(
            "Once upon a time".into(),
            options,
            RequestOptions::default(),
        )
        .unwrap();
    let mut read = 0;
    while read < tokens {
        match block_on(stream.next()).unwrap().unwrap() {
            GenerationEvent::Token { .. } => read += 1,
            GenerationEvent::Prefill { .. } | GenerationEvent::Finished { .. } => {}
        }
    }
    if lets_go {
        drop((stream, model));
    } else {
        // The worker continues while there is room for its events.
        std::mem::forget((stream, model));
    }
    exit(CODE)
}
