//! An app that quits while the library works ends as it meant to.

#![allow(clippy::unwrap_used)] // A test may fail by panicking.

use std::{
    env,
    pin::pin,
    process::{Command, exit},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use openelm_ffi::{GenerationEvent, GenerationOptions, LoadOptions, load_model};

/// How the child ends: the number of tokens that it reads first, and whether it lets go of all.
const QUIT: &str = "OPENELM_TEST_QUIT";
const CODE: i32 = 7;

#[test]
fn quitting_while_the_library_works_is_clean() {
    if let Ok(how) = env::var(QUIT) {
        let (tokens, lets_go) = how.split_once(' ').unwrap();
        quit(tokens.parse().unwrap(), lets_go.parse().unwrap());
    }
    for round in 0..40 {
        let how = format!("{} {}", round % 10, round % 2 == 0);
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "quitting_while_the_library_works_is_clean"]);
        let ended = child.env(QUIT, &how).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(CODE), "{how}: {said}");
    }
}

fn quit(tokens: usize, lets_go: bool) -> ! {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../openelm-core/tests/fixtures/tales"
    );
    let run = load_model(folder.into(), LoadOptions::default()).unwrap();
    while wait(run.next()).unwrap().is_some() {}
    let engine = run.engine().unwrap();
    let options = GenerationOptions {
        max_tokens: 400,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: None,
        stop: Vec::new(),
        logprobs: 0,
        prefill_chunk: None,
        ignore_eos: true,
    };
    let stream = engine.generate("Once upon a time".into(), options).unwrap();
    let mut read = 0;
    while read < tokens {
        match wait(stream.next()).unwrap().unwrap() {
            GenerationEvent::Token { .. } => read += 1,
            GenerationEvent::Prefill { .. } | GenerationEvent::Finished { .. } => {}
        }
    }
    match lets_go {
        true => drop((stream, engine)),
        // The worker goes on as far as there is room for its events.
        false => std::mem::forget((stream, engine)),
    }
    exit(CODE)
}

/// The result of a future, on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}
