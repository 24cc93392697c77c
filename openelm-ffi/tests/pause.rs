//! Pausing for the background, with a slow device, within a load and after a failure.
#![cfg(feature = "inject-faults")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openelm_ffi::{
    Error, GenerationEvent, GenerationStream, LanguageModel, LoadOptions, RequestOptions,
    default_generation_options, load_model, pause, resume,
};
use openelm_testing::{block_on, tales};

fn load() -> Arc<LanguageModel> {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    run.model().unwrap()
}

fn start(model: &LanguageModel, prompt: &str) -> Arc<GenerationStream> {
    let options = default_generation_options().unwrap();
    model
        .generate(prompt.into(), options, RequestOptions::default())
        .unwrap()
}

/// The text of a stream.
fn text(stream: &GenerationStream) -> Result<String, Error> {
    let mut text = String::new();
    while let Some(event) = block_on(stream.next())? {
        if let GenerationEvent::Token { text: piece, .. } = event {
            text += &piece;
        }
    }
    Ok(text)
}

/// True if nothing is in progress within `milliseconds`, in a pause that goes on.
fn is_idle(milliseconds: u64) -> bool {
    let idle = pause(milliseconds).unwrap();
    resume().unwrap();
    idle
}

/// One test: the gate belongs to the process.
#[test]
fn pauses_only_with_nothing_in_progress() {
    let model = load();
    let expected = text(&start(&model, "A fox")).unwrap();
    assert!(expected.len() > 20, "{expected}");

    // A step of two seconds: a short pause reports it, a longer one waits for its end.
    let slow = start(&model, "<|slow|>");
    thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    assert!(!pause(100).unwrap(), "a step is running");
    assert!(is_idle(10_000));
    assert!(started.elapsed() > Duration::from_millis(500));
    assert!(is_idle(0), "nothing began while paused");
    drop(slow);
    resume().unwrap();

    // After a token, the next step runs on the device while nobody reads.
    let stream = start(&model, "A fox");
    let mut found = String::new();
    while found.is_empty() {
        if let Some(GenerationEvent::Token { text, .. }) = block_on(stream.next()).unwrap() {
            found = text;
        }
    }
    thread::sleep(Duration::from_millis(300));
    assert!(pause(5_000).unwrap());
    resume().unwrap();
    assert_eq!(found + &text(&stream).unwrap(), expected);

    // A load rests between two tensors, and ends after the pause.
    for _ in 0..10 {
        let path = tales().to_str().unwrap().to_owned();
        let run = load_model(path, LoadOptions::default()).unwrap();
        let _ = block_on(run.next()).unwrap();
        assert!(pause(5_000).unwrap());
        thread::sleep(Duration::from_millis(20));
        assert!(is_idle(0));
        resume().unwrap();
        while block_on(run.next()).unwrap().is_some() {}
        assert_eq!(
            text(&start(&run.model().unwrap(), "A fox")).unwrap(),
            expected
        );
    }

    // The report that a failed step leaves on the device is not the next request's.
    let failed = text(&start(&model, "<|mlx-fault|>")).unwrap_err();
    assert!(matches!(failed, Error::Device { .. }), "{failed}");
    assert_eq!(text(&start(&model, "A fox")).unwrap(), expected);
}
