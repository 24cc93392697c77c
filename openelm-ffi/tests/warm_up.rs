//! Warming up a model before its first text.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{sync::Arc, thread, time::Duration};

use openelm_ffi::{
    ChatTemplate, Error, GenerationEvent, GenerationOptions, GenerationStream, LanguageModel,
    LoadOptions, RequestOptions, default_generation_options, load_model, new_chat, pause, resume,
};
use openelm_testing::{block_on, tales};

fn load() -> Arc<LanguageModel> {
    let run = load_model(tales().to_str().unwrap().into(), LoadOptions::default()).unwrap();
    while block_on(run.next()).unwrap().is_some() {}
    run.model().unwrap()
}

fn options() -> GenerationOptions {
    GenerationOptions {
        max_tokens: 12,
        ..default_generation_options().unwrap()
    }
}

fn text(stream: &GenerationStream) -> String {
    let mut text = String::new();
    while let Some(event) = block_on(stream.next()).unwrap() {
        if let GenerationEvent::Token { text: piece, .. } = event {
            text += &piece;
        }
    }
    text
}

/// True if nothing is in progress within `milliseconds`, in a pause that goes on.
fn is_idle(milliseconds: u64) -> bool {
    let idle = pause(milliseconds).unwrap();
    resume().unwrap();
    idle
}

/// One test: the gate belongs to the process.
#[test]
fn warms_up_while_the_gate_is_open_and_does_not_change_the_text() {
    let model = load();
    let generate = || {
        text(
            &model
                .generate("A fox".into(), options(), RequestOptions::default())
                .unwrap(),
        )
    };
    let expected = generate();
    block_on(model.warm_up()).unwrap();
    assert_eq!(generate(), expected);

    let chat = new_chat(Arc::clone(&model), ChatTemplate::Plain, Vec::new()).unwrap();
    chat.prewarm(String::new()).unwrap();
    let answer = text(
        &chat
            .respond("A fox".into(), options(), RequestOptions::default())
            .unwrap(),
    );
    assert_eq!(answer, expected);

    pause(10_000).unwrap();
    thread::scope(|scope| {
        let warming = scope.spawn(|| block_on(model.warm_up()));
        thread::sleep(Duration::from_millis(200));
        assert!(!warming.is_finished() && is_idle(0));
        resume().unwrap();
        warming.join().unwrap().unwrap();
    });

    block_on(model.unload()).unwrap();
    let error = block_on(model.warm_up()).unwrap_err();
    assert!(matches!(error, Error::Unloaded { .. }), "{error}");
    chat.prewarm(String::new()).unwrap();
}
