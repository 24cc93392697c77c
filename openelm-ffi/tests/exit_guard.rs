//! A process that exits while the library is working ends with its own exit code.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    env,
    process::{Command, exit},
    time::{Duration, Instant},
};

use openelm_ffi::{
    GenerationEvent, GenerationOptions, LoadOptions, default_generation_options, load_model, pause,
};
use openelm_testing::{block_on, tales};

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
            None => quit_in_load(how == "paused"),
        }
    }
    let texts = (0..40).map(|round| format!("{} {}", round % 10, round % 2 == 0));
    let loads = (0..10).map(|round| ["load", "paused"][round % 2].to_owned());
    for how in texts.chain(loads) {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "quitting_during_work_is_clean"]);
        let started = Instant::now();
        let ended = child.env(QUIT, &how).output().unwrap();
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

fn quit_in_text(tokens: usize, lets_go: bool) -> ! {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    let model = run.model().unwrap();
    let options = GenerationOptions {
        max_tokens: 400,
        ignore_eos: true,
        ..default_generation_options().unwrap()
    };
    let stream = model.generate("Once upon a time".into(), options).unwrap();
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
